"""Time one optimizer step of the same batch in one process of one thread, and shared by two such processes.

PYTHONPATH=src python benchmarks/distributed.py [rounds]
"""

import os
import statistics
import sys
from itertools import count

import torch
from measure import configure, in_turn, seconds, show, verdict

from digitlab.platform import console, machine
from digitlab.training.follow import take_epoch
from digitlab.training.handover import hand_over
from digitlab.training.setup import Job, set_up

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 7
STEPS = {"mlp": (128, 30), "cnn_pool": (128, 5), "cnn_wide": (16, 2)}  # images of a batch, steps of a round
PROCESSES = 2


def stepper(job: Job, is_shared: bool):
    """Return a function that takes the steps of an epoch, and gives the seconds of one."""
    _, steps = STEPS[job.names["model"]]
    job.data.share = (0, PROCESSES if is_shared else 1)
    batches, epochs = job.data.training_batches(), count()

    def measure() -> float:
        job.classifier.team = job.team if is_shared else None
        trained = job.classifier
        handed = hand_over(trained, trained.optimizer, trained.scheduler, trained.scaler)
        epoch = {"number": next(epochs), "steps": steps, **handed}
        if is_shared:
            job.team.tell(epoch)
        return seconds(lambda: take_epoch(trained, epoch, batches)) / steps

    return measure


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # of the other process
    torch.set_num_threads(1)
    console.prepare()
    machine.prepare_training()
    rows = []
    for model, (size, _) in STEPS.items():
        cfg = configure(
            f"model={model}", "data=mnist5k", "trainer=ddp", "trainer.accelerator=cpu", f"data.batch_size={size}"
        )
        job = set_up(cfg)
        job.classifier.train()
        with job.team as team:
            team.start(cfg)
            team.meet()
            cases = {"one": stepper(job, is_shared=False), "two": stepper(job, is_shared=True)}
            times = in_turn(cases, ROUNDS)
        one, two = (statistics.median(times[name]) * 1000 for name in cases)
        parameters = sum(each.numel() for each in job.classifier.parameters())
        rows.append(
            [model, f"{size}", f"{parameters:,}", f"{one:.1f}", f"{two:.1f}", verdict(times["one"], times["two"])]
        )
    header = ["network", "batch", "parameters", "one ms", "two ms", "one / two"]
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    show(f"One step, in one process and in two, one thread each, n = {ROUNDS} rounds in turn, {load}", header, rows)


if __name__ == "__main__":
    main()
