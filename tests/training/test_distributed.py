"""Several processes share a run: the same numbers as one, one run in the store, and all end together."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil
import pytest
import torch
from conftest import REPOSITORY, Harness, rest_at_night
from program import Program

from digitlab.config.check import check
from digitlab.config.fingerprint import fingerprint
from digitlab.data.batches import Batches, EpochOrder
from digitlab.data.preprocess import Preprocess
from digitlab.training.checkpoint import reseed
from digitlab.training.distributed import Team

# 497 images: 16 batches of 31, and one of a single image, of which the second process has no row at all.
TINY = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "data.skip_first=3", "data.batch_size=31",
        "trainer=cpu", "model=mlp", "trainer.max_epochs=4")  # fmt: skip
SMALL = (*TINY, "model.hidden=[{units: 8, dropout: 0.2}]")
TWO = "trainer.devices=2"
TIMES = re.compile(r"time/|images_per_s|system/")


def points(harness: Harness, run) -> dict[str, list[tuple[int, float]]]:
    """Return every point of a run, in the order of the steps, but those of times."""
    return {key: sorted(harness.history(run, key)) for key in run.data.metrics if not TIMES.match(key)}


def weights(harness: Harness, run) -> dict[str, torch.Tensor]:
    (checkpoint,) = (harness.folder / "artifacts" / run.info.run_id / "artifacts" / "checkpoints").iterdir()
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def others(process: int) -> list[psutil.Process]:
    """Return the processes that share a run with the one that started them."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process).children():
            with suppress(psutil.NoSuchProcess):
                found += [child] if "digitlab.training.follow" in child.cmdline() else []
    return found


def is_over(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


@pytest.mark.parametrize("images", [64, 31, 2, 1])
@pytest.mark.parametrize("order", [True, False])
def test_processes_share_each_batch_without_gap_or_overlap(images, order):
    split = torch.arange(images, dtype=torch.uint8).view(-1, 1, 1).expand(-1, 4, 4), torch.arange(images)
    shares = [
        [
            labels
            for _, labels in Batches(split, Preprocess(), 10, EpochOrder(images, 0) if order else None, share=share)
        ]
        for share in ((0, 3), (1, 3), (2, 3))
    ]
    whole = [labels for _, labels in Batches(split, Preprocess(), 10, EpochOrder(images, 0) if order else None)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(torch.cat(parts), batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_noise_differs_between_processes_and_is_the_firsts_own_as_ever():
    drawn = []
    for place in ((5, 2, 0), (5, 2, 1), (5, 2)):
        reseed(*place)
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_a_fingerprint_tells_how_many_processes_but_not_on_how_many_machines(harness):
    def of(*overrides: str) -> str:
        return fingerprint(check(harness.compose("data=mnist5k", *overrides)), "d")

    assert of("++trainer.devices=1", "++trainer.num_nodes=1") == of()
    assert of("trainer=ddp") == of("++trainer.devices=2") == of("++trainer.devices=1", "++trainer.num_nodes=2")
    assert len({of(), of("++trainer.devices=2"), of("++trainer.devices=4")}) == 3


@pytest.mark.table
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trainer.devices=0"], "trainer.devices=0: must be a whole number from 1"),
        (["trainer.devices=auto"], "trainer.devices=auto: must be a whole number from 1"),
        (["trainer.devices=9999"], "trainer.devices=9999: this machine has "),
        (["trainer.num_nodes=2"], "trainer.num_nodes=2: torchrun or srun must start the processes of each machine"),
        ([TWO, "data.batch_size=1"], "data.batch_size=1: 2 processes share each batch, so at least 2"),
        (
            [TWO, "model.hidden=[{units: 8, batch_norm: before}]"],
            "model: classifier.0.1: BatchNorm1d would see the rows",
        ),
        ([TWO, "loss={_target_: torch.nn.CrossEntropyLoss, reduction: sum}"], "loss: of a batch it is not the mean of"),
        ([TWO, "loss={_target_: torch.nn.CrossEntropyLoss, weight: null, ignore_index: 3}"], "loss: of a batch it is"),
        ([TWO, "+trainer.callbacks.x={_target_: steps.Sees}"], "trainer.callbacks.x: Sees has hooks around steps, and"),
        (["+trainer.strategy=ddp"], "trainer.strategy=ddp: cannot be set: trainer.devices says how many processes"),
        (["-m", "seed=0,1", TWO, "hydra/launcher=joblib"], "trainer.devices=2: not with hydra/launcher=joblib"),
    ],
)
def test_what_processes_cannot_share_is_refused_in_one_line(harness, tmp_path, monkeypatch, overrides, words):
    (tmp_path / "steps.py").write_text(
        "import pytorch_lightning as pl\nclass Sees(pl.Callback):\n    def on_train_batch_end(self, *_): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    end = harness.main(*SMALL, *overrides)
    assert str(end).startswith(f"error: {words}"), end
    assert "\n" not in end
    assert not harness.folder.exists()


@pytest.mark.parametrize(
    ("variables", "overrides", "words"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, [], "WORLD_SIZE=2: torchrun started several processes, and a run is one"),
        ({"WORLD_SIZE": "3", "RANK": "0"}, [TWO], "WORLD_SIZE=3: torchrun started several processes, and trainer.dev"),
        (
            {"WORLD_SIZE": "2", "RANK": "0"},
            ["-m", "seed=0,1", TWO],
            "WORLD_SIZE=2: torchrun started several processes,",
        ),
        (
            {"PMI_SIZE": "2", "PMI_RANK": "0"},
            [TWO],
            "PMI_SIZE=2: mpiexec started several processes; allowed: torchrun,",
        ),
    ],
)
def test_other_processes_than_the_run_asks_for_are_refused_in_one_line(
    harness, monkeypatch, variables, overrides, words
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    end = harness.main(*SMALL, *overrides)
    assert str(end).startswith(f"error: {words}"), end
    assert not harness.folder.exists()


@pytest.mark.slow
@pytest.mark.lean
@pytest.mark.parametrize(
    "exact",
    [
        ("model.hidden=[{units: 8}]", "optim=sgd_momentum", "scheduler=cosine", "trainer.gradient_clip_val=0.5"),
        # Weights of convolutions lie in memory otherwise than they are written, and so must their gradients.
        ("model.hidden=[]", "model.blocks=[{channels: 4, pool: 2},{channels: 4, pool: 4}]", "optim.lr=1e-4"),
        # Of the last three batches the one of a single image is a part that one process does not have.
        ("model.hidden=[{units: 8}]", "trainer.accumulate_grad_batches=3", "averaging.kind=ema", "averaging.decay=0.9"),
    ],
)
def test_two_processes_compute_what_one_does(harness, exact):
    assert harness.main(*TINY, *exact) is None
    assert harness.main(*TINY, *exact, TWO) is None
    two, one = harness.runs()
    ours, theirs = points(harness, two), points(harness, one)
    assert ours.keys() == theirs.keys()
    assert len(ours["train/loss_step"]) == 4 * (6 if any("accumulate" in each for each in exact) else 17)
    for key in ours:
        assert [step for step, _ in ours[key]] == [step for step, _ in theirs[key]], key
        assert [value for _, value in ours[key]] == pytest.approx([value for _, value in theirs[key]], abs=1e-6), key
    mine = weights(harness, two)
    for name, tensor in weights(harness, one).items():
        assert torch.allclose(mine[name], tensor, rtol=0, atol=1e-6), name
    assert two.data.params["trainer.devices"] == "2"
    assert not others(os.getpid())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Two processes that train with dropout, without a fault."""
    harness = Harness(tmp_path_factory.mktemp("undisturbed") / "harness", pictures=False)
    assert harness.main(*SMALL, TWO) is None
    (run,) = harness.runs()
    return points(harness, run), weights(harness, run)


@pytest.mark.slow
@pytest.mark.lean
@pytest.mark.parametrize("epoch", rest_at_night([3, 1, 2, 4]))
def test_where_one_of_the_others_is_killed_the_run_ends_and_is_continued_exactly(
    harness, monkeypatch, undisturbed, epoch
):
    began, tell = [], Team.tell

    def tell_and_kill(team: Team, word: dict) -> None:
        tell(team, word)
        if word.get("number") == epoch - 1 and not began:
            began.append(time.monotonic())
            threading.Timer(0.01, others(os.getpid())[0].kill).start()

    monkeypatch.setattr(Team, "tell", tell_and_kill)
    end = harness.main(*SMALL, TWO)
    assert time.monotonic() - began[0] < 30
    assert end == "error: process 2 of 2 ended: SIGKILL"
    assert not others(os.getpid())
    assert harness.runs()[0].info.status == "FAILED"
    assert harness.main(*SMALL, TWO) is None
    (run,) = harness.runs()
    assert points(harness, run) == undisturbed[0]
    mine = weights(harness, run)
    assert all(torch.equal(mine[name], tensor) for name, tensor in undisturbed[1].items())


@pytest.mark.slow
@pytest.mark.lean
@pytest.mark.parametrize("number", rest_at_night([signal.SIGKILL, signal.SIGINT, signal.SIGTERM]))
def test_where_the_first_is_ended_so_are_the_others(harness, undisturbed, number):
    program = Program(harness, *SMALL, TWO, "trainer.max_epochs=4", "evaluate_on=last")
    assert program.wait_for("epoch 2/4")
    followers = others(program.process.pid)
    assert len(followers) == 1
    program.process.send_signal(number)
    began = time.monotonic()
    assert program.wait() == (-number if number == signal.SIGKILL else 128 + number)
    while not all(map(is_over, followers)):
        assert time.monotonic() - began < 30
        time.sleep(0.1)
    assert harness.runs()[0].info.status != "FINISHED"
    assert harness.main(*SMALL, TWO, "evaluate_on=last") is None
    (run,) = harness.runs()
    same = [key for key in undisturbed[0] if not key.startswith("test/")]
    assert {key: points(harness, run)[key] for key in same} == {key: undisturbed[0][key] for key in same}


def start(harness: Harness, *command: str, **environment: str) -> subprocess.Popen:
    harness.folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"MLFLOW_TRACKING_URI": harness.uri} | environment,
        cwd=harness.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


TRAIN = str(REPOSITORY / "src" / "train.py")


@pytest.mark.slow
@pytest.mark.lean
def test_torchrun_and_srun_start_the_processes_of_the_same_run(harness):
    torchrun = (
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0",
    )
    program = start(harness, *torchrun, TRAIN, *SMALL, "trainer=ddp")
    said, complaints = program.communicate(timeout=300)
    assert program.returncode == 0, complaints
    assert said.count("test accuracy") == 1
    (run,) = harness.runs()
    assert run.info.status == "FINISHED"
    srun = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_ID": str(os.getpid())}
    tasks = [
        start(harness, TRAIN, *SMALL, TWO, **srun, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in range(2)
    ]
    said = [task.communicate(timeout=300)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0]
    assert "is done already" in said[0]
    assert said[1] == ""
    assert len(harness.runs()) == 1


@pytest.mark.slow
@pytest.mark.lean
def test_a_sweep_runs_its_cells_in_several_processes_one_by_one(harness):
    assert harness.main("-m", *SMALL, TWO, "trainer.max_epochs=1", "seed=0,1") is None
    assert sum(run.data.params.get("trainer.devices") == "2" for run in harness.runs()) == 2
    assert not others(os.getpid())
