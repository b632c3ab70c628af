"""What a `_target_` may name of a user's own and of torchvision: sources, networks, functions that make them."""

import importlib
import sys
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from digitlab.config import build
from digitlab.config.check import check
from digitlab.config.fingerprint import own_code
from digitlab.data.sources import Images, check_images
from digitlab.models.gray import take_gray
from digitlab.training import setup

MODULE = """
import torch
from torch import nn
from torchvision.models import SqueezeNet as Foreign
from digitlab.data.sources import Images

def thirds(count=90):
    labels = torch.arange(count) % 3
    pixels = torch.zeros(count, 12, 12, dtype=torch.uint8)
    for row, label in enumerate(labels):
        pixels[row, 4 * label : 4 * label + 4] = 150 + row
    return Images("thirds", ["left", "middle", "right"], (pixels, labels))

def of_root(root, size=None): return thirds()
def nothing(): return None
def arrays(): return Images("x", ("a", "b"), (torch.zeros(4, 3, 3).numpy(), torch.zeros(4).numpy()))
def network(num_classes, input_shape): return nn.Sequential(nn.Flatten(), nn.Linear(144, num_classes))
def told_nothing(): return nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
def number(num_classes): return 3
def sgd(params, lr): return torch.optim.SGD(params, lr=lr)
class Reader: pass
"""
SMALL = ("trainer=cpu", "trainer.max_epochs=1", "data.batch_size=30")
NETWORK = ("~model.blocks", "~model.hidden", "~model.dropout", "~model.init")


@pytest.fixture(autouse=True)
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(build, "SOURCES", (tmp_path,))
    importlib.invalidate_caches()
    yield
    sys.modules.pop("own_parts", None)


def source(name: str, *more: str) -> list[str]:
    return [f"data.source._target_=own_parts.{name}", *more]


@pytest.mark.lean
def test_a_run_on_a_source_with_a_network_and_an_optimizer_made_by_functions(harness):
    own = [*source("thirds"), "model._target_=own_parts.network", *NETWORK]
    optim = ["~optim", "+optim={_target_: own_parts.sgd, _partial_: true, lr: 0.1}"]
    harness.train("data=mnist5k", *own, *optim, *SMALL)
    (run,) = harness.runs()
    assert run.data.params["data"] == "thirds"
    assert run.data.metrics["test/loss"] > 0
    assert list(own_code(check(harness.compose("data=mnist5k", *source("thirds"))))) == [
        "own_parts"
    ]  # which is stored with the run


@pytest.mark.table
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (source("nothing"), "data: its source gave NoneType; must give digitlab.data.sources.Images"),
        (source("arrays"), "data: its source gave train that has a numpy.ndarray; must be uint8 tensors"),
        (source("thirsd"), "own_parts has no thirsd; did you mean: own_parts.thirds"),
        (source("Reader"), "data.source._target_=own_parts.Reader: must be a function that reads images"),
        (source("torch.load"), "data.source._target_=own_parts.torch.load: must be a function that reads images"),
        (source("thirds", "+data.source.cuont=3"), "data.source: cuont: unknown key; allowed: count"),
        (source("thirds", "+data.source.root=x"), "data.source: root: unknown key; allowed: count"),
        (source("thirds", "data.root=/somewhere"), "data: root=/somewhere: the source takes none"),
        (["~data.source._partial_"], "data.source._partial_: must be true"),
        (["model._target_=own_parts.number", *NETWORK], "own_parts.number: gave int; must give a Module"),
        (["optim._target_=torch.optim.Adm"], "torch.optim has no Adm; did you mean: torch.optim.Adam"),
        (["optim._target_=torch.optm.Adam"], "torch has no optm; did you mean: torch.optim.Adam"),
        (["optim._target_=torch.optim.Linear"], "torch.optim has no Linear"),
        (["optim._target_=trch.optim.Adam"], "here; did you mean: torch.optim.Adam"),
        (["model._target_=own_part.network"], "here; did you mean: own_parts.network"),
        (["model._target_=digitlab.models.networks.ConNet"], "did you mean: digitlab.models.networks.ConvNet"),
        (["model._target_=own_parts.network", "model.blocks=[]"], "model: blocks: unknown key; allowed:"),
        (["+scheduler={_target_: torch.optim.lr_scheduler.StepLr}"], "mean: torch.optim.lr_scheduler.StepLR"),
        (["model._target_=torchvision.models.resnet17", *NETWORK], "did you mean: torchvision.models.resnet1"),
        (["model._target_=torchvision.models.resnet18", *NETWORK, "+model.deep=1"], "model: deep: unknown key"),
        (["model._target_=torchvision.models.resnet18", "+model.weights=DEFAULT"],
         "model.weights=DEFAULT: The parameter 'num_classes' expected value 1000 but got 10"),
        (["model._target_=torchvision.io.write_png", *NETWORK], "must be a class of Module"),
        (["model._target_=torchvision.models.get_model", *NETWORK], "one kind of image classifier, such as torchv"),
        (["model._target_=torchvision.models.segmentation.fcn_resnet50", *NETWORK], "a function that makes one"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_nothing_is_made(harness, overrides, words):
    end = harness.main("data=mnist5k", *overrides, *SMALL)
    assert words in str(end)
    assert "\n" not in str(end)
    assert not harness.folder.exists()


@pytest.mark.parametrize(
    ("overrides", "key", "kept"),
    [
        (["model._target_=torchvision.models.squeezenet1_1"], "model", set()),  # its dropout is a number
        (["model._target_=own_parts.network"], "model", set()),
        (["model._target_=digitlab.models.input_norm.InputNormNet"], "model", {"blocks", "hidden", "dropout", "init"}),
        (["optim._target_=torch.optim.SGD"], "optim", {"lr"}),
        (["optim._target_=torch.optim.SGD", "+optim.momentum=0.9"], "optim", {"lr", "momentum"}),
        (["optim._target_=torch.optim.AdamW"], "optim", {"lr", "betas", "eps", "fused"}),
        (["scheduler=cosine", "scheduler._target_=torch.optim.lr_scheduler.StepLR", "+scheduler.step_size=3"],
         "scheduler", {"step_size"}),
        (["data=mnist", *source("thirds", "data.root=null")], "data.source", set()),
        (["data=mnist", *source("thirds", "data.root=null", "+data.source.count=30")], "data.source", {"count"}),
    ],
)  # fmt: skip
def test_another_target_gets_what_is_typed_and_not_what_the_file_gave_its_own(harness, overrides, key, kept):
    cfg, *_ = setup.identify(harness.compose("data=mnist5k", *overrides))
    assert {name for name in OmegaConf.select(cfg, key) if not name.startswith("_")} == kept


def test_a_target_that_is_typed_names_the_run_and_not_the_file_that_it_replaces(harness):
    harness.pictures = False
    own = ("model._target_=own_parts.network", "optim._target_=torch.optim.SGD")
    harness.train("data=mnist5k", *source("thirds"), *own, *SMALL)
    (run,) = harness.runs()
    assert (run.data.params["model"], run.data.params["optim"]) == ("network", "sgd")
    assert run.info.run_name.startswith("network-sgd-s0-thirds")


def test_a_loss_and_a_scheduler_may_be_given_by_their_target_alone(harness):
    harness.pictures = False
    own = ("loss._target_=torch.nn.CrossEntropyLoss", "scheduler._target_=torch.optim.lr_scheduler.ConstantLR")
    assert harness.main("data=mnist5k", "model=mlp", *source("thirds"), *own, *SMALL) is None
    (run,) = harness.runs()
    assert run.data.params["scheduler"] == "constantlr"


def test_a_source_is_told_what_it_takes(harness):
    cfg = harness.compose(
        "data=mnist5k", "data.root=somewhere", "data.source._target_=own_parts.of_root", "data.size=8"
    )
    data = build.build(check(cfg), "data")
    data.setup()
    assert data.input_shape == (1, 8, 8)


def test_classes_that_an_own_module_imports_are_its_own(harness):
    cfg = harness.compose("model._target_=own_parts.Foreign", *NETWORK, "+model.version='1_1'")
    assert type(build.build(cfg, "model", num_classes=3, input_shape=(3, 64, 64))).__name__ == "SqueezeNet"


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_networks_of_torchvision_get_the_number_of_classes(harness, name):
    cfg = harness.compose(f"model._target_=torchvision.models.{name}", *NETWORK)
    network = build.build(cfg, "model", num_classes=7, input_shape=(3, 64, 64))
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("overrides", [[], ["+model.image_size=64"]])
def test_networks_for_one_size_of_image_get_that_of_the_data(harness, overrides):
    cfg = harness.compose("model._target_=torchvision.models.vit_b_16", *NETWORK, *overrides)
    size = 64 if overrides else 32
    data: Any = SimpleNamespace(num_classes=7, input_shape=(3, 32, 32))
    network = setup._network(check(cfg), data)
    assert network(torch.rand(2, 3, size, size)).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_networks_of_torchvision_take_gray_images_as_if_in_all_channels(harness, name):
    target = f"model._target_=torchvision.models.{name}"
    small = ("data=mnist5k", "data.size=32", "data.test_fraction=0.8", "trainer=smoke")
    assert harness.main(target, *NETWORK, *small) is None
    cfg = harness.compose(target, *NETWORK)
    torch.manual_seed(0)
    colour, gray = (build.build(cfg, "model", num_classes=7, input_shape=(3, 64, 64)).eval() for _ in range(2))
    gray.load_state_dict(colour.state_dict())
    take_gray(gray)
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(gray(images), colour(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_a_network_of_timm_is_asked_for_in_a_line_where_it_is_not_installed(harness):
    if find_spec("timm"):
        pytest.skip("timm is installed")
    end = harness.main("data=mnist5k", "model._target_=timm.models.resnet18", *NETWORK)
    assert end == "error: model._target_=timm.models.resnet18: the package timm is not installed"


def test_a_network_need_not_take_what_it_is_told(harness):
    cfg = harness.compose("model._target_=own_parts.told_nothing", *NETWORK)
    assert isinstance(build.build(cfg, "model", num_classes=3, input_shape=(1, 12, 12)), nn.Sequential)


def right(**changes) -> Images:
    pair = torch.zeros(4, 5, 5, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    return Images("x", ("a", "b"), pair)._replace(**changes)


def pair(shape=(4, 5, 5), labels=(0, 1, 0, 1), dtype=torch.uint8):
    return torch.zeros(shape, dtype=dtype), torch.tensor(labels)


def test_a_right_source_is_taken():
    assert check_images(right(classes=["a", "b"], test=pair(), val=pair())).classes == ("a", "b")
    check_images(right(train=pair((4, 5, 5, 3))))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ((1, 2), "gave tuple"),
        (right(name=""), "name ''"),
        (right(name="a/b"), "name 'a/b'"),
        (right(name=None), "name None"),
        (right(name="a\udcff"), r"the name 'a\\udcff'; must be text that UTF-8 has signs for"),
        (right(classes=("a", "\udcff")), r"the name '\\udcff'; must be text that UTF-8"),
        (right(classes=("a", "b", "c")), "there is no training image of the class c; each class must have one"),
        (right(classes=None), "the classes .None.; must be two or more texts"),
        (right(classes=5), "the classes .5.; must be two or more texts"),
        (right(test=(*pair(), pair())), "gave test that has 3 members; must be uint8 tensors"),
        (right(train=pair()[0]), "gave train that is a Tensor; must be uint8 tensors"),
        (right(classes=("a",)), "classes"),
        (right(classes=("a", "a")), "classes"),
        (right(classes=(0, 1)), "classes"),
        (right(classes="ab"), "classes"),
        (right(train=None), "train that is a NoneType"),
        (right(train=pair(dtype=torch.float32)), "torch.float32"),
        (right(train=(pair()[0], torch.zeros(4))), "torch.float32"),
        (right(train=pair((4, 25))), "shapes"),
        (right(train=pair((4, 1, 5, 5))), "shapes"),
        (right(train=pair(labels=(0, 1))), "shapes"),
        (right(train=pair((0, 5, 5), ())), "int64|empty|float32"),
        (right(train=pair(labels=(0, 1, 2, 1))), "labels from 0 to 2 of 2 classes"),
        (right(train=pair(labels=(0, -1, 0, 1))), "labels from -1"),
        (right(test=pair((4, 6, 5))), r"test that has images of \(6, 5\)"),
        (right(val=(pair()[0].tolist(), pair()[1])), "val that has a builtins.list"),
    ],
)
def test_a_wrong_source_is_said(found, words):
    with pytest.raises(ValueError, match=words):
        check_images(found)
