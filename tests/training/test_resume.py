"""Durable checkpoints: damage is detected, and a failed save keeps the old checkpoint."""

import os
import random
import resource

import pytest
import torch

from digitlab.training import checkpoint as resume
from digitlab.training.checkpoint import (
    DamagedError,
    DurableCheckpointIO,
    EpochCheckpoint,
    Saved,
    load_whole,
    saved_checkpoints,
)

STATE = {"weights": torch.arange(20_000.0), "epoch": 3}


def state(epoch: int, run: str = "this") -> dict:
    return STATE | {
        "callbacks": {
            EpochCheckpoint.__qualname__: {"run": run, "epoch": epoch, "best_epoch": epoch, "finished": False}
        }
    }


def is_whole(checkpoint) -> bool:
    try:
        load_whole(checkpoint)
    except DamagedError:
        return False
    return True


@pytest.fixture
def saved(tmp_path):
    file = tmp_path / "last.ckpt"
    DurableCheckpointIO().save_checkpoint(STATE, file)
    return file


def test_a_saved_checkpoint_can_be_read_and_is_the_only_file(saved):
    assert torch.equal(torch.load(saved, weights_only=True)["weights"], STATE["weights"])
    assert os.listdir(saved.parent) == ["last.ckpt"]


@pytest.mark.parametrize("length", [0, 1, 0.5, -1])
def test_a_truncated_checkpoint_is_detected(saved, length):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(len(content) * length) if length == 0.5 else length])
    assert not is_whole(saved)


def test_a_flipped_bit_is_detected(saved):
    content, positions = saved.read_bytes(), random.Random(0)
    detected = 0
    for _ in range(100):
        damaged = bytearray(content)
        damaged[positions.randrange(1000, 70_000)] ^= 1 << positions.randrange(8)  # in the weights
        saved.write_bytes(damaged)
        detected += not is_whole(saved)
    assert detected == 100


def test_a_damaged_checkpoint_is_named_and_renamed(tmp_path):
    files = {name: tmp_path / f"{name}.ckpt" for name in ("last", "previous", "best")}
    for epoch, file in enumerate(files.values(), 1):
        DurableCheckpointIO().save_checkpoint(state(epoch), file)
    assert saved_checkpoints(tmp_path, "this") == {
        name: Saved(file, epoch, epoch, False) for epoch, (name, file) in enumerate(files.items(), 1)
    }
    files["last"].write_bytes(b"torn")
    files["previous"].unlink()
    files["previous"].mkdir()
    with pytest.warns(UserWarning, match=r"(last|previous)\.ckpt does not read back: not used") as said:
        assert list(saved_checkpoints(tmp_path, "this")) == ["best"]
    assert len(said) == 2
    assert sorted(os.listdir(tmp_path)) == ["best.ckpt", "last.ckpt.damaged", "previous.ckpt.damaged"]
    with pytest.warns(UserWarning, match=r"best\.ckpt is not of this run"):
        assert saved_checkpoints(tmp_path, "another") == {}


def test_a_full_disk_leaves_the_old_checkpoint_and_no_temporary_file(saved):
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*last\.ckpt'"):
            DurableCheckpointIO().save_checkpoint({"weights": torch.zeros(20_000)}, saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert torch.equal(torch.load(saved, weights_only=True)["weights"], STATE["weights"])
    assert os.listdir(saved.parent) == ["last.ckpt"]


def test_a_checkpoint_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(resume.os, name, lambda *args, name=name, real=real: (done.append(name), real(*args))[1])
    DurableCheckpointIO().save_checkpoint(STATE, tmp_path / "last.ckpt")
    assert done == ["fsync", "replace", "fsync"]  # the file, its name, the folder


def test_a_checkpoint_that_does_not_read_back_never_replaces_the_old_one(saved, monkeypatch):
    def fail(file):
        raise DamagedError("does not read back")

    monkeypatch.setattr(resume, "load_whole", fail)
    with pytest.raises(OSError, match="does not read back"):
        DurableCheckpointIO().save_checkpoint({"weights": torch.zeros(3)}, saved)
    assert torch.load(saved, weights_only=True)["epoch"] == 3
    assert os.listdir(saved.parent) == ["last.ckpt"]
