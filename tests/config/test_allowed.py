"""`allow_targets=`: an installed package is built from where the command line names it, and nobody else can."""

import importlib
import sys

import pytest

import digitlab
from digitlab.config.allowed import allow, allowed
from digitlab.config.check import check
from digitlab.config.errors import UserError
from digitlab.config.fingerprint import own_code

MODULE = """
import os
from os import makedirs
from subprocess import Popen
import torch
from torch import nn
from torchvision.models import SqueezeNet
from digitlab.data.sources import Images

def halves():
    labels = torch.arange(60) % 2
    pixels = torch.zeros(60, 8, 8, dtype=torch.uint8)
    for row, label in enumerate(labels):
        pixels[row, 4 * label : 4 * label + 4] = 150 + row
    return Images("halves", ["top", "bottom"], (pixels, labels))

class Scaled(nn.Linear):
    pass

def network(num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), Scaled(64, num_classes))
"""
SMALL = ("data=mnist5k", "trainer=cpu", "trainer.max_epochs=1", "data.batch_size=20")
OWN = ("data.source._target_=vision_parts.makers.halves", "model._target_=vision_parts.makers.network")
OWN += ("~model.blocks", "~model.hidden", "~model.dropout", "~model.init")
ONLY = "allow_targets: is taken from the command line alone, where it is allow_targets=NAMES; no file may give it"


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """A package as pip would install it."""
    folder = tmp_path / "site-packages" / "vision_parts"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "makers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(folder.parent)
    importlib.invalidate_caches()
    yield folder
    allow(())
    for name in [name for name in sys.modules if name.startswith("vision_parts")]:
        del sys.modules[name]


@pytest.mark.lean
def test_a_run_on_a_source_and_a_network_of_an_installed_package(harness, installed):
    words = (*SMALL, *OWN)
    refused = harness.main(*words)
    assert "must begin with digitlab., torch., " in refused
    assert "timm., a package that allow_targets= names, or a module that lies in src/ or here" in refused
    assert harness.main(*words, "allow_targets=vision_parts") is None
    (run,) = harness.runs()
    assert run.data.params["data"] == "halves"
    assert run.data.tags["command"].endswith("allow_targets=vision_parts")
    assert "allow_targets" not in str(run.data.params) + run.info.run_name
    assert harness.main(*words) == refused  # it was allowed for once

    allow(["vision_parts"])  # a new version of the package makes another run
    cfg = check(harness.compose(*words))
    assert own_code(cfg) == {"vision_parts": installed / "__init__.py", "vision_parts.makers": installed / "makers.py"}
    allow(())
    again = harness.main("rerun", "latest", entry_point="digitlab")
    assert again == 2
    assert harness.main("rerun", "latest", "--allow-targets", "vision_parts", entry_point="digitlab") in (None, 0)


@pytest.mark.parametrize(
    "value", ["os", "subprocess", "builtins", "hydra", "vision_parts,pickle", "[vision_parts,sys]"]
)
def test_what_could_run_anything_may_not_be_named(harness, value):
    end = harness.main(*SMALL, *OWN, f"allow_targets={value}")
    assert end.startswith(f"error: allow_targets={value}: ")
    assert end.endswith("would let a configuration run anything; name a package of yours")
    assert not allowed()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "must name installed packages as import does, without a dot"),
        ("[]", "must name installed packages"),
        ("*", "must name installed packages"),
        ("vision_parts.makers", "must name installed packages"),
        ("vision_parts,", "must name installed packages"),
        ("../vision_parts", "must name installed packages"),
        ("${oc.env:ALLOWED}", "must name installed packages"),
        ("no_such_parts", "no package no_such_parts is installed"),
        ("torch", "what may be built from torch is so without being allowed"),
    ],
)
def test_what_names_no_package_is_one_line(harness, monkeypatch, value, words):
    monkeypatch.setenv("ALLOWED", "vision_parts")
    end = harness.main(*SMALL, *OWN, f"allow_targets={value}")
    assert end.startswith(f"error: allow_targets={value}: {words}")
    assert "\n" not in end
    assert not harness.folder.exists()


@pytest.mark.parametrize("name", ["ALLOW_TARGETS", "allow_targets", "DIGITLAB_ALLOW_TARGETS"])
def test_the_environment_allows_nothing(harness, monkeypatch, name):
    monkeypatch.setenv(name, "vision_parts")
    assert "must begin with digitlab." in harness.main(*SMALL, *OWN)


FILES = {
    "a choice": ("optim/mine.yaml", "# @package _global_\nallow_targets: vision_parts\n", ("optim=mine",)),
    "a claim": ("claim/mine.yaml", "# @package _global_\nallow_targets: [vision_parts]\n", ("claim=mine",)),
    "a sweep": (
        "sweep/mine.yaml",
        "# @package _global_\nsweep: {name: mine}\nhydra:\n  mode: MULTIRUN\n"
        "  sweeper: {params: {+allow_targets: vision_parts, seed: '0,1'}}\n",
        ("sweep=mine",),
    ),
    "arguments in the name of Hydra": (
        "sweep/mine.yaml",
        "# @package _global_\nhydra: {overrides: {task: [allow_targets=vision_parts]}}\n",
        ("sweep=mine",),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_no_file_allows_anything(harness, tmp_path, name):
    file, text, chosen = FILES[name]
    (tmp_path / "conf" / file).parent.mkdir(parents=True)
    (tmp_path / "conf" / file).write_text(text)
    end = harness.main(f"--config-dir={tmp_path / 'conf'}", *SMALL, *OWN, *chosen)
    assert end == f"error: {ONLY}" or "must begin with digitlab." in end
    assert "\n" not in end
    assert not harness.folder.exists()


@pytest.mark.parametrize("word", ["+allow_targets=vision_parts", "++allow_targets=[vision_parts]"])
def test_a_key_of_that_name_says_how_it_is_given(harness, word):
    assert harness.main(*SMALL, *OWN, word) == f"error: {ONLY}"


@pytest.mark.parametrize("name", ["os.system", "makedirs", "Popen", "torch.load", "torch.hub.load"])
def test_an_allowed_package_lends_none_of_what_it_imports(harness, tmp_path, name):
    target = f"data.source._target_=vision_parts.makers.{name}"
    end = harness.main(*SMALL, target, "allow_targets=vision_parts")
    assert "must be a function that reads images" in end
    model = harness.main(*SMALL, f"model._target_=vision_parts.makers.{name}", *OWN[2:], "allow_targets=vision_parts")
    assert "must be a class of Module" in model


@pytest.mark.lean
def test_python_and_processes_that_share_a_run_are_told(harness, monkeypatch):
    for name, place in harness.places.items():
        monkeypatch.setenv(name, place)
    with pytest.raises(UserError, match="must begin with"):
        digitlab.train(*SMALL, *OWN)
    run = digitlab.train(*SMALL, *OWN, "trainer=ddp", "trainer.accelerator=cpu", allow_targets="vision_parts")
    assert run.metrics["test/acc"] >= 0


@pytest.mark.slow
def test_workers_of_a_sweep_are_told(harness):
    words = (*SMALL, *OWN, "-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert harness.main(*words, "allow_targets=vision_parts") is None
    assert [run.data.tags["done"] for run in harness.runs() if "done" in run.data.tags] == ["true"] * 3  # and the sweep
