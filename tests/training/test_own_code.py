"""A user's own network in its own checkout: when it is trained again, and which code is stored with the run."""

import importlib
import subprocess
import sys

import mlflow
import pytest

from digitlab.config import build
from digitlab.training import record

TINY = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "trainer.max_epochs=1", "trainer=cpu")
OWN = (*TINY, "model._target_=own_network.Network", "~model.blocks", "~model.hidden", "~model.dropout", "~model.init")
NETWORK = """
from torch import nn
from own_parts.activation import Activation

class Network(nn.Sequential):
    def __init__(self, num_classes, input_shape):
        super().__init__(nn.Flatten(), nn.Linear(784, 16), Activation(), nn.Linear(16, num_classes))
"""
ACTIVATION = "from torch.nn import ReLU as Activation\n"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A committed checkout whose src/ holds a network and the helper that it imports."""
    source = tmp_path / "checkout" / "src"
    (source / "own_parts").mkdir(parents=True)
    (source / "own_network.py").write_text(NETWORK)
    (source / "own_parts" / "__init__.py").touch()
    (source / "own_parts" / "activation.py").write_text(ACTIVATION)
    for command in ("init -q", "add .", "-c user.name=me -c user.email=me@here commit -q -m one"):
        subprocess.run(["git", *command.split()], cwd=source.parent, check=True)
    monkeypatch.syspath_prepend(source)
    monkeypatch.setattr(build, "SOURCES", (source,))
    monkeypatch.setattr(record, "REPOSITORY", source.parent)
    yield source.parent
    forget_modules()


def forget_modules():
    """Make the next import read the user's modules again, as another process would."""
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def patch_of(run) -> str:
    return mlflow.artifacts.load_text(f"{run.info.artifact_uri}/uncommitted.patch")


@pytest.mark.lean
def test_a_changed_helper_module_is_trained_again_and_stored_as_a_patch(harness, checkout, capsys):
    (checkout / "note.txt").write_text("a stray note")
    harness.train(*OWN)
    (clean,) = harness.runs()
    assert clean.data.tags["git.dirty"] == "false"
    assert "uncommitted.patch" not in {file.path for file in harness.client.list_artifacts(clean.info.run_id)}

    forget_modules()
    harness.train(*OWN)
    assert len(harness.runs()) == 1
    assert "is done already" in capsys.readouterr().out

    (checkout / "src" / "own_parts" / "activation.py").write_text(ACTIVATION.replace("ReLU", "Tanh"))
    (checkout / "src" / "own_parts" / "stray.py").write_text("password = 1")
    forget_modules()
    harness.train(*OWN)
    changed, first = harness.runs()
    assert first.info.run_id == clean.info.run_id
    assert changed.data.metrics["test/loss"] != clean.data.metrics["test/loss"]
    assert changed.data.tags["git.dirty"] == "true"
    assert "+from torch.nn import Tanh as Activation" in patch_of(changed)
    assert "stray" not in patch_of(changed)


@pytest.mark.lean
def test_an_imported_untracked_file_is_stored(harness, checkout):
    network = checkout / "src" / "own_network.py"
    network.write_text(NETWORK.replace("own_parts.activation", "own_new"))
    (checkout / "src" / "own_new.py").write_text(ACTIVATION)
    harness.train(*OWN)
    (run,) = harness.runs()
    assert run.data.tags["git.dirty"] == "true"
    (checkout.parent / "patch").write_text(patch_of(run))
    subprocess.run(["git", "clone", "-q", checkout, checkout.parent / "clone"], check=True)
    subprocess.run(["git", "apply", checkout.parent / "patch"], cwd=checkout.parent / "clone", check=True)
    for name in ("own_network.py", "own_new.py"):
        assert (checkout.parent / "clone" / "src" / name).read_bytes() == (checkout / "src" / name).read_bytes()


@pytest.mark.lean
def test_without_git_a_run_has_no_git_tags(harness, checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    harness.train(*OWN)
    (run,) = harness.runs()
    assert not {"git.dirty", "mlflow.source.git.commit"} & run.data.tags.keys()
