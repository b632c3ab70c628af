"""The documentation is true: links lead somewhere, names exist, commands run as they stand in a copy of all files."""

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from servers import ui

from digitlab.config.allowed import KEY as ALLOWED
from digitlab.config.leaves import is_within
from digitlab.config.schema import Claim
from digitlab.config.ungiven import UNGIVEN

REPOSITORY = Path(__file__).resolve().parents[2]
CONF = REPOSITORY / "conf"
GUIDE = (
    "start",
    "train",
    "sweep",
    "report",
    "compare",
    "your-claim",
    "own",
    "use-a-model",
    "team",
)  # pages whose commands run
CLAIMS = set((CONF / "claim").glob("*.yaml"))
TUTORIALS = {file for file in CLAIMS if re.search(r"_\d{3}(_first_epoch)?$", file.stem)}
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])
# A block under a comment `<!-- not run here: why -->` is not run; one under `<!-- fails: why -->` has to fail.
BLOCK = re.compile(r"(?:^<!-- (?P<mark>[\w ]+): [^\n]*-->\n)?^```(?P<kind>bash|python)\n(?P<text>.*?)^```", re.M | re.S)


def headings(page: Path) -> set[str]:
    """The anchors that a forge makes of a page's headings."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), target
        assert not anchor or anchor in headings(place), target


def test_every_page_is_linked_from_another():
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+\.md[^)\s]*)\)", page.read_text())
    }
    assert set((REPOSITORY / "docs").glob("*.md")) <= linked


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    named = {name for page in PAGES for name in re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)\b", _code(page))}
    assert named
    assert named <= targets


def _code(page: Path) -> str:
    text = page.read_text()
    return "\n".join([*re.findall(r"^```.*?^```", text, re.M | re.S), *re.findall(r"`([^`\n]+)`", text)])


def test_the_readme_is_short_and_shows_the_report():
    text = (REPOSITORY / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert "docs/report.png" in "\n".join(text.splitlines()[:10])


def test_the_map_of_the_readme_has_every_folder():
    text = (REPOSITORY / "README.md").read_text().split("## The folders")[1]
    named = re.findall(r"^(?:  )?(\w+)/ ", text, re.M)
    package = REPOSITORY / "src" / "digitlab"
    assert set(named) >= {file.parent.name for file in package.glob("*/__init__.py")}
    assert all((package / name).is_dir() or (REPOSITORY / name).is_dir() for name in named)


def test_its_results_are_those_of_the_comparison():
    rows = re.findall(r"^\| \w+ \| .*\d \| .*\d \| .*\d \|$", (REPOSITORY / "README.md").read_text(), re.M)
    assert len(rows) == 5
    assert set(rows) <= set((REPOSITORY / "docs" / "comparison.md").read_text().splitlines())


def test_the_readme_gives_the_verdict_on_every_tutorials_claim():
    row = re.compile(r"^\| \[(\w+)\]\(.*\| (\d+) \| ([A-Z?][A-Z? ]*) \| [TUL]* \| [\d.]+ \|$", re.M)
    runs = {file.stem: 0 for file in TUTORIALS}
    verdicts = dict(runs)
    for name, n, verdict in row.findall((REPOSITORY / "docs" / "claims" / "index.md").read_text()):
        if name in runs:
            runs[name], verdicts[name] = int(n), verdict
    text = (REPOSITORY / "README.md").read_text()
    assert dict(re.findall(r"\[(\w+)\]\(docs/claims/\1\.md\) ([A-Z?][A-Z? ]*[A-Z?])", text)) == verdicts
    (told,) = re.findall(r"Run again ten times each: (.*?)\.", text, re.S)
    counted = {(str(count), verdict) for verdict, count in Counter(verdicts.values()).items()}
    assert set(re.findall(r"(\d+) ([A-Z?][A-Z? ]*[A-Z?])", told)) == counted
    assert set(runs.values()) == {10}


WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def test_the_pages_count_right():
    def cells(name: str, key: str) -> int:
        return len(OmegaConf.load(CONF / "sweep" / f"{name}.yaml").hydra.sweeper.params[key].split(","))

    claims, networks = cells("claims", "claim"), cells("grid_full", "model")
    tutorials = len({re.findall(r"_(\d{3})", file.stem)[0] for file in TUTORIALS})
    field = cells("field", "claim")
    for page, words in (
        ("README.md", f"{WORDS[tutorials].capitalize()} published tutorials make {WORDS[claims]} claims"),
        ("docs/your-claim.md", f"runs all {WORDS[claims]} over five seeds"),
        ("docs/your-claim.md", f"`sweep=field` has {field} more"),
        ("docs/sweep.md", f"all {WORDS[networks]} networks"),
    ):
        assert words in (REPOSITORY / page).read_text(), page
    others = {file.stem for file in CLAIMS - TUTORIALS}
    assert len(others - {"speedrun"}) == field  # our own is no tutorial's, and in no count


@pytest.mark.parametrize(
    ("page", "group"),
    [*(("train", group) for group in ("model", "optim", "data", "scheduler", "trainer")), ("sweep", "sweep")],
)
def test_the_guide_names_every_choice(page, group):
    choices = {file.stem for file in (CONF / group).glob("*.yaml")} - {"base"}
    assert choices <= set(re.findall(r"`(\w+)`", (REPOSITORY / "docs" / f"{page}.md").read_text()))


@pytest.fixture(scope="module")
def keys() -> set[str]:
    """Every key that a configuration has, dots in it: of a run, of a report, of a claim, and of each launcher."""
    known = {f"claim.{name}" for name in Claim.model_fields} | {"claims"}  # the last is make's
    for app, *overrides in (
        ["train"],
        ["train", "hydra/launcher=joblib"],
        ["train", "hydra/launcher=ray"],
        ["train", "hydra/launcher=slurm"],
        ["report"],
    ):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose(app, overrides, return_hydra_config=True)
        known |= set(dotted(OmegaConf.to_container(cfg)))
    return known


def dotted(node: dict, above: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from dotted(value, f"{above}{key}.")


def test_every_key_and_choice_that_the_guide_names_exists(keys):
    named = [(page, *each) for page in ["README.md", *(f"docs/{name}.md" for name in GUIDE)] for each in settings(page)]
    assert len(named) > 50
    for page, key, value in named:
        if (CONF / key).is_dir():
            text = (REPOSITORY / page).read_text()
            for choice in value.split(","):
                file = f"conf/{key}/{choice}.yaml"
                # Hydra has launchers of its own; a page may make a file, or leave the name to the reader
                assert (REPOSITORY / file).exists() or key.startswith("hydra/") or file in text or choice.isupper(), (
                    file
                )
        else:
            assert key in keys or is_within(key, (*UNGIVEN, ALLOWED)), f"{page}: {key}"


def settings(page: str) -> list[tuple[str, str]]:
    """Return each KEY=VALUE in a page's commands and prose; not those with + before them, which are to be added."""
    text = (REPOSITORY / page).read_text()
    lines = "\n".join(block["text"] for block in BLOCK.finditer(text) if block["mark"] != "fails").splitlines()
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    commands = [each for each in [*lines, *spans] if re.match(r"(python src/|make |digitlab |[a-z][\w./]*=)", each)]
    return [pair for each in commands for pair in re.findall(r"""(?:^|[\s"'])([a-z][\w./]*)=([^\s"']*)""", each)]


@pytest.fixture(scope="module")
def copy(tmp_path_factory, mnist):
    """A folder of its own with the files of the repository, the environment that is here, and one run in the store."""
    target = tmp_path_factory.mktemp("docs") / "digitlab"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines():
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    (target / ".venv").symlink_to((REPOSITORY / ".venv").resolve())
    os.utime(target / "requirements.lock", (0, 0))  # else make may take the environment for older, and install into it
    first = run(target, "python src/train.py model=mlp data=mnist5k trainer=smoke", mnist, "bash")
    assert first.returncode == 0, first.stderr
    return target


def environment() -> dict[str, str]:
    """What a user's shell has: nothing of the make or the store that this test may run under."""
    ours = ("MLFLOW", "MAKE", "MFLAGS", "ARGS")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}


def run(copy: Path, script: str, mnist: Path, kind: str) -> subprocess.CompletedProcess:
    added = {"DIGITLAB_DATA": str(mnist.resolve())}
    if kind == "bash":
        command = ["bash", "-euo", "pipefail", "-c", f"source .venv/bin/activate\n{script}"]
    else:  # a checkout's own package is found as the guide says it is
        command, added["PYTHONPATH"] = [copy / ".venv/bin/python", "-c", script], "src"
    return subprocess.run(
        command,
        cwd=copy,
        env=environment() | added,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", *(f"docs/{name}.md" for name in GUIDE)])
def test_every_command_runs_as_it_stands(copy, mnist, page):
    blocks = list(BLOCK.finditer((REPOSITORY / page).read_text()))
    assert blocks or page == "docs/team.md"
    for block in blocks:
        script = block["text"]
        # make test would run this test; make ui never ends and has a test of its own.
        if block["mark"] == "not run here" or script.startswith(("make test", "make ui")):
            continue
        # The first example is 12 epochs of the whole of MNIST; one of the smallest network will do here.
        script = script.replace("model=cnn_pool optim=adadelta  ", "model=mlp optim=adadelta trainer.max_epochs=1  ")
        result = run(copy, script, mnist, block["kind"])
        if block["mark"] == "fails":
            assert result.returncode != 0
            assert len(result.stderr.splitlines()) == 1
        else:
            assert result.returncode == 0, script + result.stdout + result.stderr
            assert "warning:" not in result.stdout


@pytest.mark.slow
def test_make_ui_opens_what_the_runs_left(copy):
    with ui(copy, environment()) as server:
        assert "MLflow" in requests.get(server.uri, timeout=5).text
