"""What a run is identified by: its settings, its data, and the code of the user's own."""

import pytest
from omegaconf import OmegaConf

from digitlab.config import build
from digitlab.config.check import check
from digitlab.config.fingerprint import fingerprint
from digitlab.training.setup import identify


def fingerprint_of(harness, *overrides, digest="d", classes=()) -> str:
    return fingerprint(check(harness.compose(*overrides)), digest, classes)


def test_the_names_of_classes_count_where_they_are_the_users(harness):
    for told, count in ((["data=image_folder", "data.root=x"], 2), (["data=arrays", "data.file=x"], 2), ([], 1)):
        assert len({fingerprint_of(harness, *told, classes=each) for each in (("a", "b"), ("a", "c"))}) == count


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Make a checkout with files of the user's own in src/, and be in it."""

    def make(folder: str, files: dict[str, str]) -> None:
        source = tmp_path / folder / "src"
        source.mkdir(parents=True)
        for file, text in files.items():
            (source / file).write_text(text)
        monkeypatch.syspath_prepend(source)
        monkeypatch.setattr(build, "SOURCES", (source,))

    return make


# Computed by version 0.1, commit 1cffad9. A store that it filled must go on answering.
PUBLISHED = {
    "": "326cba5a88f7364d",
    "model=mlp optim=sgd": "5c7ac7cf7b82f983",
    "model=mlp +model.hidden=[{units:512}] seed=7": "25ea6b02f395a820",
    "model=cnn_double_5x5 optim=adamw loss=clipped_cross_entropy": "b44969df9a880e8c",
    "model._target_=torch.nn.Flatten": "dcbf522cbf0493b0",
    "claim=simple_004": "5a7a0b6fb91b591c",
    "counterpart=simple_004_torch": "93e679b0b2d0735b",
    "data.augment.shift=2 data.augment.rotate=10": "775dd399f4190aa0",
    "data=fashion_mnist early_stopping.patience=3 evaluate_on=last data.normalize=false": "331c21d6fc4f7037",
    "data=image_folder data.root=/photos trainer=cpu trainer.precision=bf16-mixed": "e92f5198f72c8282",
    "scheduler=one_cycle optim=adadelta": "dad3349104f153cd",
    "scheduler=cosine +trainer.gradient_clip_val=1": "c32a8edf2b392370",
    "+trainer.callbacks.stop={_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/acc}":
        "0f924efb86ffc85f",
}  # fmt: skip


@pytest.mark.parametrize("overrides", PUBLISHED)
def test_a_fingerprint_is_what_it_was_in_version_0_1(harness, overrides):
    split = [overrides] if "{_" in overrides else overrides.split()
    assert fingerprint_of(harness, *split) == PUBLISHED[overrides]


def test_so_is_that_of_a_network_in_one_file_of_the_users_own(harness, checkout):
    checkout("0.1", {"mynet.py": "import torch\nclass MyNet(torch.nn.ReLU):\n    pass\n"})
    assert fingerprint_of(harness, "model._target_=mynet.MyNet") == "02f7c63af8500c0a"


@pytest.mark.parametrize(
    "overrides",
    [
        ["tracking.experiment=other"],
        ["rerun=true"],
        ["vs=best"],
        ["data.root=/elsewhere"],
        ["data.fallback=false"],
        ["trainer.callbacks.progress=null"],
        ["optim=adam", "model=cnn_pool"],
        ["optim.eps=1e-7", "optim.lr=0.001"],
        ["data.augment.shift=0.0"],
        ["data.val_fraction=0.2"],  # the digest of the splits says it
    ],
)
def test_what_cannot_change_a_result_leaves_the_fingerprint(harness, overrides):
    assert fingerprint_of(harness, *overrides) == fingerprint_of(harness)


@pytest.mark.parametrize(
    "override",
    ["monitor=val/loss", "data.shuffle=true", "data.drop_last=false", "data.augment.flip=0", "data.augment.fill=zero",
     "trainer.gradient_clip_val=null", "trainer.accumulate_grad_batches=1", "trainer.accumulate_grad_batches=null",
     "trainer.max_steps=null", "data.mean=null", "data.mean=0", "data.mean=[0.0]", "data.std=1", "optim.bias.lr=null",
     "metrics=[]", "averaging.kind=null", "data.folds=null"],
)  # fmt: skip
def test_a_key_typed_at_its_default_leaves_the_fingerprint(harness, override):
    prints = [identify(harness.compose("data=mnist5k", *more))[2] for more in ((), [f"++{override}"])]
    assert prints[0] == prints[1]


def test_what_a_recipe_says_at_its_default_stays_in_the_fingerprint(harness):
    """Or else the runs of these recipes that are done would be made again."""
    for claim, key in (("caffe_lenet", "data.mean"), ("nielsen_shallow", "data.shuffle")):
        told = [f"claim={claim}", "data=mnist5k", "++claim.data=mnist5k", f"++{key}={'0' if 'mean' in key else 'true'}"]
        assert OmegaConf.select(identify(harness.compose(*told))[0], key) is not None


@pytest.mark.table
@pytest.mark.parametrize(
    "override",
    ["seed=1", "data.seed=1", "optim=sgd", "optim.eps=1e-8", "model=mlp", "model.dropout=false", "model.init=torch",
     "data.batch_size=64", "data.normalize=false", "data.augment.shift=1", "trainer.max_epochs=3",
     "trainer.precision=bf16-mixed", "trainer.accelerator=cpu", "loss=clipped_cross_entropy", "evaluate_on=last",
     "early_stopping.patience=3", "scheduler=cosine", "+trainer.gradient_clip_val=1"],
)  # fmt: skip
def test_what_changes_a_result_changes_the_fingerprint(harness, override):
    assert fingerprint_of(harness, override) != fingerprint_of(harness)


def test_other_data_is_another_fingerprint(harness):
    assert fingerprint_of(harness, digest="e") != fingerprint_of(harness)


@pytest.mark.parametrize(
    "override",
    ["model._target_=mynet.Net", "+model.layers=[{_target_: mynet.Net}]", "+trainer.callbacks.mine._target_=mynet.Net"],
)
def test_all_code_of_the_users_own_is_part_of_it_wherever_the_checkout_lies(harness, checkout, override):
    prints = []
    for folder, activation in (("one", "relu"), ("moved", "relu"), ("changed", "tanh")):
        checkout(folder, {"mynet.py": "from mylayer import Net", "mylayer.py": f"from torch import {activation}"})
        prints.append(fingerprint_of(harness, override))
    one, moved, changed = prints
    assert one == moved
    assert one != changed
    assert one != fingerprint_of(harness)


def test_runs_whose_results_a_change_touched_are_not_found_again(harness):
    """Shift and rotation under bfloat16 moved images to other places in 0.1."""
    assert fingerprint_of(harness, "trainer.precision=bf16-mixed", "data.augment.shift=2") != "14760914dbabf678"
