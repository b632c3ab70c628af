"""The house itself: who may import what, what may stand in the repository, the two commands."""

import ast
import subprocess
import sys

import pytest

FLOORS = (
    {"layers", "graph", "loading", "signals"},
    {"config", "networks", "sources", "statistics", "plots", "console", "machine", "document"},
    {"run", "comparison", "progress"},
    {"data", "classifier", "tracking", "resume", "pages", "caveats", "verdicts"},
    {"training", "upkeep", "claims", "recipes", "results"},
    {"sweep", "report"},
)
OWNERS = {
    "mlflow": {"run", "tracking"},
    "matplotlib": {"plots"},
    "rich": {"console", "progress"},
    "scipy": {"statistics"},
}


def imports(file) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules(repository):
    return {file.stem: file for file in (repository / "src" / "digitlab").glob("*.py") if file.stem != "__init__"}


def test_every_module_has_its_floor_and_imports_only_from_below(repository):
    found = modules(repository)
    assert set(found) == set().union(*FLOORS)
    for level, names in enumerate(FLOORS):
        below = set().union(*FLOORS[:level])
        for name in names:
            ours = {each.split(".")[1] for each in imports(found[name]) if each.startswith("digitlab.")}
            assert ours & set(found) <= below, name


@pytest.mark.parametrize("package", OWNERS)
def test_each_outside_world_has_one_owner(repository, package):
    importers = {
        name
        for name, file in modules(repository).items()
        if any(each.split(".")[0] == package for each in imports(file))
    }
    assert importers == OWNERS[package]


def test_only_the_upper_floors_see_the_configuration(repository):
    for name in set().union(*FLOORS[:4]) - {"config"}:
        seen = {each.split(".")[0] for each in imports(modules(repository)[name])}
        assert not seen & {"hydra", "omegaconf"}, name


def test_doors_are_short(repository):
    for door in (repository / "src").glob("*.py"):
        assert len(door.read_text().splitlines()) <= 30


def test_the_configuration_composes_before_torch_or_digitlab_load(repository):
    code = (
        "import sys; from hydra import compose, initialize_config_dir\n"
        f"with initialize_config_dir({str(repository / 'conf')!r}, version_base='1.3'):\n"
        "    assert compose('train').optim.lr == 1e-3\n"
        "assert not {'torch', 'digitlab'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_looking_at_the_configuration_does_not_load_torch(repository):
    code = (
        f"import runpy, sys; sys.argv = ['train.py', '--cfg', 'job']; sys.path.insert(0, {str(repository / 'src')!r})\n"
        "from digitlab import loading; loading.leave = lambda: None\n"
        f"runpy.run_path({str(repository / 'src' / 'train.py')!r}, run_name='__main__')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_what_leaves_does_first_what_was_asked_for_the_end_and_writes_all_it_said(repository):
    code = (
        f"import atexit, sys; sys.path.insert(0, {str(repository / 'src')!r})\n"
        "from digitlab.loading import leave\n"
        "atexit.register(print, 'at the end'); print('said'); leave()"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (0, "said\nat the end\n", "")


def test_what_a_run_loads_is_without_scipy_stats_which_is_there_for_who_asks(repository):
    code = (
        f"import sys; sys.path.insert(0, {str(repository / 'src')!r})\n"
        "from digitlab.loading import quickly\n"
        "with quickly(): import digitlab.training\n"
        "assert not {'scipy.stats', 'scipy.signal', 'sklearn'} & sys.modules.keys()\n"
        "import scipy.signal; assert scipy.signal.windows.hamming(3)[1] == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_report_does_not_load_torch(repository):
    code = f"import sys; sys.path.insert(0, {str(repository / 'src')!r}); import digitlab.report\n"
    subprocess.run([sys.executable, "-c", f"{code}assert 'torch' not in sys.modules"], check=True)


def test_the_lock_is_exact_and_names_no_host(repository):
    lines = (repository / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all("==" in pin and "://" not in pin and " @ " not in pin for pin in pins)
    for pin in (
        "torch==2.15.0",
        "torchvision==0.29.2",
        "pytorch-lightning==2.6.6",
        "hydra-core==1.3.8",
        "mlflow==3.17.2",
    ):
        assert pin in pins


def test_every_make_target_explains_itself(repository):
    out = subprocess.run(["make", "help"], cwd=repository, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "train", "sweep", "claims", "report", "test", "test-all", "ui", "relocate", "gc", "lint"):
        assert f"\n{target} " in f"\n{out}"
