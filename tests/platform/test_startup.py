"""What start-up loads, how a process ends, what may stand in the repository."""

import subprocess
import sys

import pytest


def test_doors_are_short(repository):
    for entry_point in (repository / "src").glob("*.py"):
        assert len(entry_point.read_text().splitlines()) <= 30


def test_the_configuration_composes_before_torch_or_digitlab_load(repository):
    code = (
        "import sys; from hydra import compose, initialize_config_dir\n"
        f"with initialize_config_dir({str(repository / 'conf')!r}, version_base='1.3'):\n"
        "    assert compose('train').optim.lr == 1e-3\n"
        "assert not {'torch', 'digitlab'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_looking_at_the_configuration_loads_neither_torch_nor_pydantic(repository):
    code = (
        f"import runpy, sys; sys.argv = ['train.py', '--cfg', 'job']; sys.path.insert(0, {str(repository / 'src')!r})\n"
        "from digitlab.platform import startup; startup.fast_exit = lambda: None\n"
        f"runpy.run_path({str(repository / 'src' / 'train.py')!r}, run_name='__main__')\n"
        "assert not {'torch', 'pydantic'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_what_leaves_does_first_what_was_asked_for_the_end_and_writes_all_it_said(repository):
    code = (
        f"import atexit, sys; sys.path.insert(0, {str(repository / 'src')!r})\n"
        "from digitlab.platform.startup import fast_exit\n"
        "atexit.register(print, 'at the end'); print('said'); fast_exit()"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (0, "said\nat the end\n", "")


@pytest.mark.slow
def test_what_a_run_loads_is_without_scipy_stats_which_is_there_for_who_asks(repository):
    code = (
        f"import sys; sys.path.insert(0, {str(repository / 'src')!r})\n"
        "from digitlab.platform.startup import fast_imports\n"
        "with fast_imports(): import digitlab.training.run\n"
        "assert not {'scipy.stats', 'scipy.signal', 'sklearn'} & sys.modules.keys()\n"
        "import scipy.signal; assert scipy.signal.windows.hamming(3)[1] == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_report_does_not_load_torch(repository):
    code = f"import sys; sys.path.insert(0, {str(repository / 'src')!r}); import digitlab.report.report\n"
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
