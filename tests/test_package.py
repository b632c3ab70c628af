"""The wheel, in a fresh environment and an empty folder: what it brings, where it keeps things, what it takes."""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SMOKE = ("data=mnist5k", "trainer=smoke")
NETWORK = """
import torch
from torch import nn


class Line(nn.Sequential):
    def __init__(self, num_classes, input_shape):
        super().__init__(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), num_classes))
"""


@pytest.fixture(scope="module")
def installed(repository, tmp_path_factory):
    """A new environment that has the wheel, and for everything else the packages of the one that runs the tests."""
    if not {"pip", "setuptools"} <= {each.name for each in distributions()}:  # to look for their modules warns
        pytest.skip("pip and setuptools are not here to build a wheel with")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("src", "conf"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(repository / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    build = [sys.executable, "-m", "pip", "wheel", *options, "--no-build-isolation", "-w", folder, source]
    subprocess.run(build, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    site_packages = next((folder / "venv").glob("lib/python*/site-packages"))
    (site_packages / "project.pth").write_text(sysconfig.get_paths()["purelib"])
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("digitlab-*.whl")
    subprocess.run([python, "-m", "pip", "install", *options, "--force-reinstall", wheel], check=True)
    shutil.rmtree(source)
    return python.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("empty")


@pytest.fixture
def start(installed, folder):
    def start(program: str, *arguments: str) -> str:
        hidden = ("PYTHON", "MLFLOW", "DIGITLAB")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
        command = [installed / program, *arguments]
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return start


def test_it_trains_in_an_empty_folder_and_keeps_everything_there(start, folder):
    before = recorded_here()
    said = start("digitlab", "train", "model=mlp", *SMOKE)
    assert "\nmlp-adam-s0-mnist5k-smoke\n" in said
    assert f"mlflow ui --backend-store-uri sqlite:///{folder}/mlruns/mlflow.db" in said
    assert "mlp-adam-s0-mnist5k-smoke is done already" in start("digitlab", "train", "model=mlp", *SMOKE)
    start("digitlab", "train", "-m", "model=mlp", *SMOKE)  # a sweep of what is done, for the report
    assert f"written to {folder}/reports/" in start("digitlab", "report")
    assert "<html" in next(folder.glob("reports/*/report.html")).read_text()
    assert "nothing to do" in start("digitlab", "store", "relocate")
    assert {file.name for file in folder.iterdir()} == {"mlruns", "reports"}
    assert recorded_here() == before


def recorded_here() -> set[Path]:
    return set(Path(__file__).parents[1].glob("mlruns/**/*"))


def test_it_takes_files_and_a_network_of_the_users_own(start, folder):
    for group, name, content in (
        ("optim", "slow", "_target_: torch.optim.Adam\n_partial_: true\nlr: 0.0005\n"),
        ("model", "line", "_target_: mine.networks.Line\n"),
    ):
        (folder / "own" / group).mkdir(parents=True)
        (folder / "own" / group / f"{name}.yaml").write_text(content)
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").touch()
    (folder / "mine" / "networks.py").write_text(NETWORK)
    said = start("digitlab", "train", "--config-dir", "own", "model=line", "optim=slow", *SMOKE)
    assert "\nline-slow-s0-mnist5k-smoke\n" in said
    code = f"import digitlab; r = digitlab.train('model=line', 'optim=slow', *{SMOKE}, config_dir='own'); print(r.name)"
    said = start("python", "-c", code)
    assert "line-slow-s0-mnist5k-smoke is done already" in said
    assert said.endswith("\nline-slow-s0-mnist5k-smoke\n")


def test_what_a_cluster_is_given_lies_in_that_folder(start, folder):
    said = start("digitlab", "train", "hydra/launcher=slurm", "--cfg", "hydra", "-p", "hydra.launcher", "--resolve")
    assert f"submitit_folder: {folder}/mlruns/submitit/%j\n" in said
