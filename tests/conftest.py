"""Fixtures: the command line, run in this process or another one, each time with its own store."""

import os
import runpy
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hooks
import pytest
from fake_store import FakeStore, empty_tables
from fault_run import Oracle
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from made import Made
from mlflow import MlflowClient
from program import Program

from digitlab import __main__ as command
from digitlab.config.compose import without_hydra
from digitlab.platform import startup
from digitlab.platform.signals import exit_on_signals
from digitlab.tracking import store
from digitlab.training import run as training_run
from digitlab.training.run import train

# A shell lets background processes ignore these, which would be inherited by the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# What `make test ARGS=...` was given, which make hands on in both ways, is not for the makes that tests run.
for name in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "ARGS", "PORT"):
    os.environ.pop(name, None)

# An entry point that runs in this process must not end it: pytest would stop silently, with exit code 0.
startup.fast_exit = lambda code=0: sys.exit(code) if code else None

# MLflow takes two seconds to create the tables of a store. In this process they are copied instead.
store._create_schema = lambda file: file.write_bytes(empty_tables())

REPOSITORY = Path(__file__).resolve().parents[1]
MNIST = Path(os.environ.get("DIGITLAB_DATA") or REPOSITORY.parent / "shared" / "data")


def rest_at_night(cases: Iterable) -> list:
    """Return cases of a kind, of which all but the first are left to make test-night."""
    first, *rest = cases
    return [first, *(pytest.param(each, marks=pytest.mark.night) for each in rest)]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The folder of the four real MNIST files."""
    if not (MNIST / "MNIST" / "raw").is_dir():
        pytest.skip("the MNIST files are not here: set DIGITLAB_DATA to the folder that holds MNIST/raw")
    return MNIST


class Harness:
    """A store in its own folder, and the ways to run entry points on it."""

    def __init__(self, folder: Path, pictures: bool = True):
        """Without `pictures`, runs in this process skip figures and model."""
        self.folder, self.pictures = folder, pictures
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    @property
    def places(self) -> dict[str, str]:
        """The variables of the environment that say where runs are kept, and wait for a server."""
        return {"MLFLOW_TRACKING_URI": self.uri, "DIGITLAB_JOURNAL": str(self.folder / "journal")}

    def compose(self, *overrides: str):
        """Compose the configuration as the command line does, and set HydraConfig."""
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            cfg = compose("train", [*overrides, f"tracking.uri={self.uri}"], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return without_hydra(cfg)

    def train(self, *overrides: str) -> float:
        """Do what `python src/train.py ...` does, in this process."""
        with self._patched():
            return train(self.compose(*overrides))

    def cli(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Run `python src/train.py ...` in its own process and folder."""
        self.folder.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, REPOSITORY / "src" / "train.py", *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=os.environ | self.places | environment,
            timeout=300,
        )

    def main(self, *arguments: str, entry_point: str = "train") -> str | int | None:
        """Run an entry point in this process; return what it exits with: None, a code, or an error line.

        It is a file of src/, or "digitlab" for the command, whose first argument is its subcommand.
        """
        GlobalHydra.instance().clear()
        with self._patched() as patch, exit_on_signals():  # which restores the handlers that it sets
            file = REPOSITORY / "src" / f"{entry_point}.py"
            patch.setattr(sys, "argv", [f"src/{file.name}" if file.exists() else entry_point, *arguments])
            patch.setattr(sys, "path", [*sys.path])
            try:
                runpy.run_path(str(file), run_name="__main__") if file.exists() else command.main()
            except SystemExit as end:
                return end.code
        return None

    @contextmanager
    def _patched(self) -> Iterator[pytest.MonkeyPatch]:
        with pytest.MonkeyPatch.context() as patch:
            for name, place in self.places.items():
                patch.setenv(name, place)
            if not self.pictures:
                hooks.skip_pictures(patch.setattr)
            yield patch

    def history(self, run, key: str) -> list[tuple[int, float]]:
        """Return the points of a metric of a run: step and value."""
        return [(point.step, point.value) for point in self.client.get_metric_history(run.info.run_id, key)]

    def runs(self) -> list:
        """Return every run of the experiment, newest first.

        A store that a program is about to create is left alone: two processes that create its file damage it.
        """
        if not store.Store(self.uri, "digitlab").exists():
            return []
        experiment = self.client.get_experiment_by_name("digitlab")
        return self.client.search_runs([experiment.experiment_id]) if experiment else []

    def cells(self) -> list:
        """Return the runs that train, newest first."""
        return [run for run in self.runs() if not _is_parent(run)]

    def parent(self, sweep: str = ""):
        """Return the run of a sweep itself; without its name, of the only one."""
        (run,) = (run for run in self.runs() if _is_parent(run, sweep))
        return run


def _is_parent(run, sweep: str = "") -> bool:
    tag = run.data.tags["fingerprint"]
    return tag == f"sweep-{sweep}" if sweep else tag.startswith("sweep-")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items) -> None:
    """Leave three of four cases of a table to the slow tests, and to a night what is only tried then."""
    if "night" not in config.option.markexpr:
        left = [item for item in items if item.get_closest_marker("night")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    cases = Counter()
    for item in items:
        if item.get_closest_marker("table"):
            if cases[item.function] % 4:
                item.add_marker(pytest.mark.slow)
            cases[item.function] += 1


@pytest.fixture
def harness(tmp_path, request) -> Harness:
    return Harness(tmp_path / "harness", pictures=not request.node.get_closest_marker("lean"))


@pytest.fixture(scope="session")
def oracle(tmp_path_factory) -> Oracle:
    """The results of a small run without a fault."""
    return Oracle(tmp_path_factory.mktemp("oracle"))


@pytest.fixture
def fake_store(tmp_path) -> FakeStore:
    return FakeStore(Harness(tmp_path / "fake_store"))


@pytest.fixture
def made(monkeypatch) -> Made:
    """What makes runs of known accuracies in place of training."""
    made = Made()
    monkeypatch.setattr(training_run, "train", lambda cfg: made.train(cfg))
    return made


@pytest.fixture(autouse=True)
def _end_programs():
    yield
    Program.end_all()


@pytest.fixture(autouse=True)
def _forget_hydra():
    yield
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
