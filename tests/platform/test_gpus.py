"""Each process takes the GPU that the fewest have taken, and gives it back however it ends."""

import gc
import os
import subprocess
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch

from digitlab.data.datamodule import ImageData
from digitlab.platform import gpus, machine

TAKE = """
import sys
from digitlab.platform import gpus
mine = gpus.claim(sys.argv[1:])
print(mine[0], flush=True)
input()
"""


@pytest.fixture
def take(tmp_path, repository):
    """Start a process that takes one of the GPUs it sees and holds it; return it and which it took."""
    started = []

    def start(*names: str) -> tuple[subprocess.Popen, int]:
        process = subprocess.Popen(
            [sys.executable, "-c", TAKE, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=repository / "src",
            env=os.environ | {"TMPDIR": str(tmp_path)},
            text=True,
        )
        started.append(process)
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_processes_take_a_gpu_each_in_turn(take):
    taken = [take("GPU-a", "GPU-b", "GPU-c") for _ in range(5)]
    assert [place for _, place in taken] == [0, 1, 2, 0, 1]
    first, _ = taken[2]
    first.kill()
    first.wait()
    assert take("GPU-a", "GPU-b", "GPU-c")[1] == 2


def test_a_gpu_is_known_by_its_name_not_by_its_place(take):
    assert take("GPU-b")[1] == 0  # as with CUDA_VISIBLE_DEVICES=1
    assert take("GPU-a", "GPU-b")[1] == 0
    assert take("GPU-b", "GPU-a", "GPU-c")[1] == 2


def seen(monkeypatch, *names: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda place: SimpleNamespace(uuid=names[place]))


def test_a_process_keeps_its_gpu_from_run_to_run(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "CLAIMS", tmp_path)
    machine._claimed.cache_clear()
    _, lock = gpus.claim(["GPU-a", "GPU-b"])
    seen(monkeypatch, "GPU-a", "GPU-b")
    assert [machine.devices("gpu") for _ in range(3)] == [[1], [1], [1]]
    lock.release()
    machine._claimed.cache_clear()


def test_the_processes_of_a_run_take_one_each_in_order_and_no_other_process_prefers_those(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "CLAIMS", tmp_path)
    seen(monkeypatch, "GPU-a", "GPU-b", "GPU-c")
    held = []
    for place in (0, 1):
        machine._claimed.cache_clear()
        assert machine.devices("gpu", place) == [place]
        held.append(machine._claimed(("GPU-a", "GPU-b", "GPU-c")[place : place + 1]))  # as its own process would
    machine._claimed.cache_clear()
    assert machine.devices("gpu") == [2]
    assert machine.count_devices("gpu") == (3, "GPUs")
    machine._claimed.cache_clear()


def test_one_gpu_or_none_is_not_claimed(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "claim", None)
    seen(monkeypatch, "GPU-a")
    assert machine.devices("gpu") == [0]
    assert machine.devices("cpu") == 1


@pytest.mark.slow
@pytest.mark.lean
def test_a_run_gives_back_what_the_one_before_had_on_a_gpu(harness, monkeypatch):
    kept, real = [], machine.free_gpu_memory

    def free() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_initialized", lambda: True)
            patch.setattr(torch.cuda, "empty_cache", lambda: kept.append([run() is not None for run in loaded]))
            real()

    loaded = []
    setup = ImageData.setup
    monkeypatch.setattr(ImageData, "setup", lambda self, stage=None: loaded.append(weakref.ref(self)) or setup(self))
    monkeypatch.setattr(machine, "free_gpu_memory", free)
    gc.disable()  # Python's own looking for circles comes by chance
    try:
        for seed in range(2):
            harness.train("data=mnist5k", "trainer=smoke", "model=mlp", f"seed={seed}")
    finally:
        gc.enable()
    assert kept[0] == []
    assert kept[1]
    assert not any(kept[1])
