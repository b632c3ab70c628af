"""A change of the code that changes a number is seen: losses of short runs are compared with recorded ones."""

import dataclasses
from collections.abc import Callable

import pytest
import pytorch_lightning as pl
import recorded_losses
import torch.nn.functional as F
from recorded_losses import CASES, RESULTS, difference, read_table, train_case, write_images
from torch import nn

from digitlab.data import batches, splits
from digitlab.models import initial_values, layers
from digitlab.training import checkpoint, classifier, setup


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.mark.filterwarnings("ignore:.*emulated here", "ignore:.*is for GPUs")
@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_recorded(images, name):
    changed = difference(name, train_case(name, images), read_table())
    assert not changed, changed


def test_the_table_is_of_these_cases_and_results():
    table = read_table()
    unused = table["losses"].keys() - CASES.keys()
    assert not unused, f"{', '.join(unused)}: no case any more: write the table again (make record-losses)"
    assert table["RESULTS"] == RESULTS, "RESULTS was raised: write the table again (make record-losses)"


def test_a_case_without_losses_is_told_in_one_sentence():
    assert difference("new", {}, read_table()) == (
        "new: has no recorded losses yet: add them to the table (make record-losses)"
    )


@pytest.mark.parametrize("group", ["model", "optim", "scheduler"])
def test_every_choice_has_a_case(repository, group):
    choices = {f"{group}={file.stem}" for file in (repository / "conf" / group).glob("*.yaml")}
    assert choices - {override for case in CASES.values() for override in case} <= {"scheduler=none"}  # the default


def test_losses_are_written_again_only_with_results_raised(monkeypatch, tmp_path):
    table = tmp_path / "table.json"
    monkeypatch.setattr(recorded_losses, "TABLE", table)
    monkeypatch.setattr(recorded_losses, "CASES", {"one": ()})
    losses = {"train/loss_step": [2.5, 1.5], "val/loss": [2.0]}
    monkeypatch.setattr(recorded_losses, "train_case", lambda name, images: losses)
    recorded_losses.write_table()
    assert difference("one", losses, read_table()) is None
    before = table.read_bytes()

    losses = losses | {"train/loss_step": [2.5, 1.6]}
    with pytest.raises(SystemExit, match=r"1 cases changed.*train/loss_step\[1\] is 1.6, recorded is 1.5"):
        recorded_losses.write_table()
    assert table.read_bytes() == before

    monkeypatch.setattr(recorded_losses, "RESULTS", RESULTS + 1)
    recorded_losses.write_table()
    assert difference("one", losses, read_table()) is None


def test_another_machine_adds_rows_and_changes_none(monkeypatch, tmp_path):
    monkeypatch.setattr(recorded_losses, "TABLE", tmp_path / "table.json")
    losses = {"one": {"val/loss": [2.0]}, "two": {"val/loss": [3.0]}}
    monkeypatch.setattr(recorded_losses, "train_case", lambda name, images: losses[name])
    monkeypatch.setattr(recorded_losses, "CASES", {"one": ()})
    recorded_losses.write_table()
    here, row = recorded_losses.machine(), read_table()["losses"]["one"]
    with monkeypatch.context() as patch:
        patch.setattr(recorded_losses, "machine", lambda: here | {"cpu": "another"})
        patch.setattr(recorded_losses, "CASES", {"one": (), "two": ()})
        losses["one"] = {"val/loss": [2.00001]}
        recorded_losses.write_table()
    table = read_table()
    assert (table["machine"], table["elsewhere"], table["losses"]["one"]) == (here, ["two"], row)
    assert difference("two", {"val/loss": [3.00001]}, table) is None
    assert difference("one", losses["one"], table)


def test_the_last_bit_counts_on_the_machine_that_wrote_the_table():
    recorded = {"RESULTS": RESULTS, "machine": recorded_losses.machine(), "losses": {"one": {"val/loss": "0x1.0p+0"}}}
    elsewhere = recorded | {"machine": {"cpu": "another"}}
    nearly, off = {"val/loss": [1 + 2**-52]}, {"val/loss": [1 + 2e-5]}
    assert "val/loss[0]" in difference("one", nearly, recorded)
    assert difference("one", nearly, elsewhere) is None
    assert "val/loss[0]" in difference("one", off, elsewhere)
    for losses in ({"val/loss": [1.0, 1.0]}, {"val/loss": []}, {}, {"val/loss": [float("nan")]}):
        assert difference("one", losses, elsewhere)


# One way each in which a change of a line or two changes results: a check that does not see it would check nothing.


def order(patch: pytest.MonkeyPatch) -> None:
    real = batches.EpochOrder.draw

    def draw(self):
        return real(self).roll(1)

    patch.setattr(batches.EpochOrder, "draw", draw)


def noise(patch: pytest.MonkeyPatch) -> None:
    def seed_alike(self, trainer, module) -> None:
        pl.seed_everything(self.seed, verbose=False)

    patch.setattr(checkpoint.ReseedEveryEpoch, "on_train_epoch_start", seed_alike)


def init(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(initial_values.SCALES, "glorot", (1, "inputs"))


def split(patch: pytest.MonkeyPatch) -> None:
    real = splits.Division._stratify
    patch.setattr(
        splits.Division, "_stratify", lambda self, *args: real(dataclasses.replace(self, seed=self.seed + 1), *args)
    )


def dropout_scale(patch: pytest.MonkeyPatch) -> None:
    real = layers._draw_mask
    patch.setattr(layers, "_draw_mask", lambda like, p: (real(like, p)[0], 1.0))


def loss(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(classifier.LOSSES, "cross_entropy", lambda *pair: F.cross_entropy(*pair, label_smoothing=0.01))


def clipped_loss(patch: pytest.MonkeyPatch) -> None:
    def clipped(logits, labels):
        return F.nll_loss(logits.softmax(1).clamp(1e-6, 1 - 1e-6).log(), labels)

    patch.setitem(classifier.LOSSES, "clipped_cross_entropy", clipped)


def clipped_norm(patch: pytest.MonkeyPatch) -> None:
    real = nn.utils.clip_grad_norm_
    patch.setattr(nn.utils, "clip_grad_norm_", lambda parameters, norm: real(parameters, norm, norm_type=1.0))


def augmentation(patch: pytest.MonkeyPatch) -> None:
    real = F.affine_grid
    patch.setattr(F, "affine_grid", lambda *args, align_corners: real(*args, align_corners=True))


MUTANTS: dict[Callable[[pytest.MonkeyPatch], None], str] = {
    order: "mlp adam",
    noise: "cnn_simple sgd",
    init: "mlp adadelta",
    split: "cnn_simple adam",
    dropout_scale: "cnn_pool adam",
    loss: "cnn_simple adadelta",
    clipped_loss: "clipped loss",
    clipped_norm: "clipped gradients",
    augmentation: "augmentation",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_every_mutant_is_caught(images, monkeypatch, mutant):
    name, table = MUTANTS[mutant], read_table() | {"machine": {}}  # caught elsewhere too
    setup._load.cache_clear()  # which keeps images as they were split
    with monkeypatch.context() as patch:
        mutant(patch)
        changed = difference(name, train_case(name, images), table)
    setup._load.cache_clear()
    assert changed.startswith(f"{name}: ")  # the test of recorded losses says that without the mutant nothing changes
    assert "raise RESULTS" in changed


def test_the_page_on_reliability_gives_as_many(repository):
    text = (repository / "docs" / "reliability.md").read_text()
    assert f"{len(CASES)} recipes" in text
    assert f"{len(MUTANTS)} of {len(MUTANTS)} changes" in text
