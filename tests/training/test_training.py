"""Whole runs, configured as by the command line: what they compute, skip and continue."""

import os
import platform
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import Harness

from digitlab.config.errors import UserError
from digitlab.platform import machine
from digitlab.training import run as training_run
from digitlab.training.checkpoint import EpochCheckpoint

TINY = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "trainer.max_epochs=2", "trainer=cpu")


def weights(harness: Harness, run) -> dict[str, torch.Tensor]:
    checkpoint = harness.folder / "artifacts" / run.info.run_id / "artifacts" / "checkpoints" / "best.ckpt"
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def same_numbers(harness: Harness, one, other) -> None:
    """Check that two runs have bit-identical weights and metrics, except those of time."""
    ours, theirs = weights(harness, one), weights(harness, other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    keys = {key for key in one.data.metrics if key.startswith(("train/", "val/", "test/"))}
    assert keys == {
        "train/loss",
        "train/acc",
        "train/loss_step",
        "val/loss",
        "val/acc",
        "test/loss",
        "test/acc",
    }
    for key in keys:
        assert harness.history(one, key) == harness.history(other, key)


@pytest.mark.lean
def test_the_same_seed_gives_bit_identical_results(harness):
    for _ in range(2):
        harness.train(*TINY, "model=cnn_pool", "optim=adadelta", "rerun=true", "data.augment.rotate=5")
    second, first = harness.runs()
    assert first.info.run_id != second.info.run_id
    assert first.data.tags["fingerprint"] == second.data.tags["fingerprint"]
    same_numbers(harness, first, second)


class CrashError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.lean
@pytest.mark.parametrize(
    ("optim", "extra"),
    [
        ("adam", ["scheduler=one_cycle"]),
        pytest.param("sgd", ["early_stopping.patience=3", "optim.lr=0.5"], marks=pytest.mark.slow),
        pytest.param(
            "adadelta",
            [
                "scheduler=cosine",
                "data.augment.shift=2",
                "++data.augment.fill=nearest",
                "++data.augment.flip=0.5",
                "++data.augment.erase=0.5",
            ],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_failed_run_is_resumed_with_bit_identical_results(harness, optim, extra, monkeypatch):
    settings = (*TINY, "trainer.max_epochs=4", "model=cnn_pool", f"optim={optim}", *extra)
    save, saved = EpochCheckpoint.on_train_epoch_end, []

    def crash(self, trainer, module):
        save(self, trainer, module)
        saved.append(trainer.current_epoch)
        if len(saved) in (1, 3):  # after the first epoch, then after one more of the continued run
            raise CrashError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(EpochCheckpoint, "on_train_epoch_end", crash)
        with pytest.raises(CrashError):
            harness.train(*settings)
        broken = harness.runs()[0]
        assert broken.info.status == "FAILED"
        assert broken.data.tags["error"] == "CrashError: power cut"
        assert "done" not in broken.data.tags
        harness.client.update_run(broken.info.run_id, status="RUNNING")  # as SIGKILL leaves it
        with pytest.raises(CrashError):
            harness.train(*settings)
    harness.train(*settings)
    assert [run.info.run_id for run in harness.runs()] == [broken.info.run_id]
    harness.train(*settings, "rerun=true")
    whole, continued = harness.runs()
    assert continued.info.status == "FINISHED"
    same_numbers(harness, continued, whole)


@pytest.mark.slow
def test_points_of_an_epoch_without_its_checkpoint_are_not_stored_twice(harness, monkeypatch):
    settings = (*TINY, "model=cnn_simple")

    def crash(self, trainer, module):
        trainer.logger.flush()
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(EpochCheckpoint, "on_train_epoch_end", crash)
        with pytest.raises(CrashError):
            harness.train(*settings)
    harness.train(*settings)
    run = harness.runs()[0]
    for key in ("train/loss", "val/loss", "train/loss_step"):
        steps = [step for step, _ in harness.history(run, key)]
        assert steps == sorted(set(steps))


@pytest.mark.lean
def test_early_stopping_stops_and_a_resumed_run_stays_stopped(harness, monkeypatch):
    settings = (*TINY, "trainer.max_epochs=9", "early_stopping.patience=1", "optim=sgd", "optim.lr=3", "model=mlp")
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "evaluate", lambda *_: (_ for _ in ()).throw(CrashError))
        with pytest.raises(CrashError):
            harness.train(*settings)
    before = harness.history(harness.runs()[0], "val/loss")
    assert 2 < len(before) < 10
    losses = [value for _, value in before[1:]]
    assert min(losses) == losses[-2]  # patience 1: one epoch without improvement ends it
    harness.train(*settings)
    assert harness.history(harness.runs()[0], "val/loss") == before


@pytest.mark.lean
def test_last_or_best_weights_are_tested_as_asked(harness):
    settings = (*TINY, "trainer.max_epochs=3", "model=mlp", "optim=sgd", "optim.lr=2")
    harness.train(*settings)
    harness.train(*settings, "evaluate_on=last")
    last, best = harness.runs()
    losses = dict(harness.history(best, "val/loss")[1:])
    (best_epoch, _), (last_epoch, _) = harness.history(best, "test/acc")[0], harness.history(last, "test/acc")[0]
    assert best_epoch == min(losses, key=losses.get)
    assert last_epoch == 3
    assert [each.path for each in harness.client.list_artifacts(last.info.run_id, "checkpoints")] == [
        "checkpoints/last.ckpt"
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_as_killed_with_the_shells_exit_code(harness, number, code, monkeypatch):
    monkeypatch.setattr(EpochCheckpoint, "on_train_epoch_end", lambda *_: os.kill(os.getpid(), number))
    handler = signal.getsignal(number)
    with pytest.raises(SystemExit) as end:
        harness.train(*TINY, "model=mlp")
    assert end.value.code == code
    assert harness.runs()[0].info.status == "KILLED"
    assert signal.getsignal(number) == handler


def test_a_diverged_run_is_a_result_not_an_error(harness):
    harness.train(*TINY, "model=cnn_simple", "optim=sgd", "optim.lr=1e20", "loss=cross_entropy")
    run = harness.runs()[0]
    assert run.data.tags["done"] == "true"
    assert not np.isfinite(harness.history(run, "train/loss")[-1][1])


@pytest.mark.slow
@pytest.mark.lean
def test_the_clipped_loss_stays_finite_on_raw_pixels(harness):
    harness.train(*TINY, "model=cnn_dense1000", "optim=sgd", "data.normalize=false", "loss=clipped_cross_entropy")
    assert all(np.isfinite(value) for _, value in harness.history(harness.runs()[0], "val/loss"))


@pytest.mark.filterwarnings("ignore:.*emulated here")  # as it is on a processor without bf16
@pytest.mark.slow
def test_precision_changes_the_results_slightly(harness):
    for precision in ("32-true", "bf16-mixed"):
        harness.train(*TINY, "model=mlp", f"trainer.precision={precision}")
    half, full = harness.runs()
    assert half.data.metrics["train/loss"] != full.data.metrics["train/loss"]
    assert half.data.metrics["train/loss"] == pytest.approx(full.data.metrics["train/loss"], rel=0.05)


@pytest.mark.slow
@pytest.mark.lean
@pytest.mark.parametrize(("flags", "taken"), [("fpu avx2", "32-true"), ("fpu avx512_bf16", "bf16-mixed")])
def test_auto_precision_is_bf16_where_the_hardware_has_it(harness, monkeypatch, flags, taken):
    monkeypatch.setattr(machine, "_cpu_info", lambda field: flags)
    harness.train(*TINY, "model=mlp", "trainer.precision=auto", "trainer.accelerator=cpu")
    assert harness.runs()[0].data.params["trainer.precision"] == taken


@pytest.mark.slow
@pytest.mark.lean
@pytest.mark.filterwarnings("always:.*emulated here")
def test_bf16_without_hardware_support_gives_a_warning(harness, monkeypatch, capsys):
    monkeypatch.setattr(machine, "_cpu_info", lambda field: "fpu avx2")
    harness.train(*TINY, "model=mlp", "trainer.precision=bf16-mixed", "trainer.accelerator=cpu")
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: trainer.precision=bf16-mixed: emulated here, so slower than 32-true" in said


@pytest.mark.slow
@pytest.mark.lean
@pytest.mark.filterwarnings("always:.*Using the embedded")
def test_a_run_on_the_fallback_has_the_name_of_the_fallback(harness, tmp_path, monkeypatch, capsys):
    from torchvision import datasets

    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    settings = ("trainer=smoke", "model=cnn_simple", "data.test_fraction=0.5")
    harness.train("data=mnist", f"data.root={tmp_path}", *settings)
    assert "Using the embedded mnist5k instead" in capsys.readouterr().out
    run = harness.runs()[0]
    assert run.info.run_name == "cnn_simple-adam-s0-mnist5k-smoke-data.test_fraction=0.5"
    assert run.data.tags["data"] == "mnist5k"
    harness.train("data=mnist5k", *settings)  # the same images, so the same run
    assert len(harness.runs()) == 1
    with pytest.raises(UserError, match="is missing and cannot be downloaded"):
        harness.train("data=mnist", f"data.root={tmp_path}", "data.fallback=false", *settings)


@pytest.mark.lean
def test_optimizer_steps_do_not_query_nvml(harness, monkeypatch):
    queries = []
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # as Lightning leaves it, and no run before this one
    monkeypatch.setattr(torch.cuda, "_raw_device_count_nvml", lambda: queries.append(True) or -1)
    harness.train(*TINY, "model=mlp")
    steps = harness.client.get_metric_history(harness.runs()[0].info.run_id, "train/loss_step")
    assert len(queries) < len(steps)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_is_kept_until_it_is_trimmed(repository):
    code = (
        "import psutil, torch; from digitlab.platform import machine\n"
        "def used(): return psutil.Process().memory_info().rss >> 20\n"
        "machine.disable_malloc_trim(); before = used()\n"
        "blocks = [torch.ones(2**18) for _ in range(400)]; del blocks\n"
        "kept = used() - before; machine.trim_malloc()\n"
        "assert kept > 300 > 100 > used() - before, (before, kept, used())"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(repository / "src")})


@pytest.mark.slow
@pytest.mark.lean
def test_a_run_ends_after_so_many_steps_with_a_shorter_epoch(harness):
    common = ("data=mnist5k", "trainer=cpu", "model=mlp", "data.batch_size=700", "data.split=last")
    harness.train(*common, "trainer.max_epochs=2")
    harness.train(*common, "++trainer.max_steps=8", "scheduler=none", "data.steps_per_execution=4")
    harness.train(
        *common, "++trainer.max_steps=8", "scheduler=cosine", "data.steps_per_execution=1", "++data.drop_last=true"
    )
    dropping, ended, whole = harness.runs()
    assert len(harness.history(whole, "train/loss_step")) == 12
    assert harness.history(ended, "train/loss_step") == harness.history(whole, "train/loss_step")[:8]
    assert harness.history(ended, "val/loss")[:2] == harness.history(whole, "val/loss")[:2]
    assert [step for step, _ in harness.history(ended, "val/loss")] == [0, 1, 2]
    assert ended.data.tags["done"] == "true"
    assert len(harness.history(dropping, "train/loss_step")) == 8  # of which an epoch has 5
    assert harness.history(dropping, "lr")[-1][1] == pytest.approx(0, abs=1e-9)


@pytest.mark.lean
def test_the_epoch_of_the_highest_accuracy_is_tested_where_that_is_monitored(harness):
    settings = (*TINY, "model=mlp", "optim=sgd", "optim.lr=0.8", "++monitor=val/acc")
    harness.train(*settings)
    harness.train(*settings, "trainer.max_epochs=6", "early_stopping.patience=1")
    stopped, whole = harness.runs()
    losses, accuracies = ([value for _, value in harness.history(whole, f"val/{key}")[1:]] for key in ("loss", "acc"))
    assert losses[1] < losses[0]
    assert accuracies[1] < accuracies[0]
    assert [harness.history(run, "test/acc")[0][0] for run in (whole, stopped)] == [1, 1]
    assert len(harness.history(stopped, "val/acc")) == 3  # by val/loss it would have gone on
