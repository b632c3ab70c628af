"""The README is true: its commands run as they stand, in a copy of the repository."""

import os
import re
import shutil
import subprocess

import pytest
import requests
from servers import ui

pytestmark = pytest.mark.slow

FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def copy(repository, tmp_path_factory):
    """The tracked and new files of the repository in a folder of their own, with the environment that is here."""
    target = tmp_path_factory.mktemp("readme") / "digitlab"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=repository, capture_output=True, text=True, check=True).stdout.splitlines():
        if (repository / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, target / name)
    (target / ".venv").symlink_to(repository / ".venv")
    return target


def environment() -> dict[str, str]:
    """What a user's shell has: nothing of the make or the store that this test may run under."""
    ours = ("MLFLOW", "MAKE", "MFLAGS", "ARGS")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}


@pytest.mark.usefixtures("mnist")
def test_every_command_runs_as_it_stands(repository, copy, mnist):
    blocks = FENCE.findall((repository / "README.md").read_text())
    # make test would run this test; make ui never ends and has a test of its own.
    script = "\n".join(block for block in blocks if not block.startswith(("make test", "make ui")))
    assert len(blocks) > 6
    # The first example is 12 epochs of the whole of MNIST; one will do here.
    script = script.replace("model=cnn_pool optim=adadelta  ", "model=cnn_simple optim=adadelta trainer.max_epochs=1  ")
    before = {str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()}
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=copy,
        env=environment() | {"DIGITLAB_DATA": str(mnist.resolve())},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "warning:" not in result.stdout
    for name in ("cnn_pool-adadelta-s0-mnist5k", "lenet-adam-s0-mnist5k", "mlp-nadam-s0-mnist5k"):
        assert f"\n{name}" in result.stdout
    new = {str(file.relative_to(copy)) for file in copy.rglob("*") if file.is_file()} - before
    outside = {name for name in new if not name.startswith("mlruns/") and not name.endswith(".pyc")}
    assert outside == {"conf/model/lenet.yaml", "conf/optim/nadam.yaml", "conf/data/kmnist.yaml"}


def test_make_ui_opens_what_the_runs_left(copy):
    with ui(copy, environment()) as server:
        assert "MLflow" in requests.get(server.uri, timeout=5).text


def test_it_is_short(repository):
    assert len((repository / "README.md").read_text().splitlines()) <= 200


def test_its_results_are_those_of_the_comparison(repository):
    rows = re.findall(r"^\| \w+ \| .*\d \| .*\d \| .*\d \|$", (repository / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == 5
    assert set(rows) <= set((repository / "docs" / "comparison.md").read_text().splitlines())
