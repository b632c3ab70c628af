"""A process that shares a run with the first one: it takes the same steps, each with its own rows of the batch.

All that it knows at the start of an epoch it has from the first process, so it needs no store and no checkpoint.
"""

import json
import math
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig

from digitlab.config.allowed import allow
from digitlab.config.errors import one_line_errors
from digitlab.data.batches import Batches
from digitlab.platform import console, machine
from digitlab.platform.environment import shielded
from digitlab.platform.signals import end_with_parent, exit_on_signals
from digitlab.platform.startup import fast_exit
from digitlab.training.checkpoint import reseed
from digitlab.training.classifier import Classifier
from digitlab.training.handover import take_over
from digitlab.training.precision import scaler_of
from digitlab.training.setup import set_up


@exit_on_signals()
def follow(cfg: DictConfig) -> float:
    """Take the steps of the run of `cfg` until the first process says that there are no more; return nan."""
    console.console.quiet = True  # the first process says it all
    warnings.simplefilter("ignore")
    machine.prepare_training()
    job = set_up(cfg)
    job.data.trainer = job.trainer  # on whose device its batches lie
    job.classifier.to(job.trainer.strategy.root_device).train()
    batches = job.data.training_batches()
    job.classifier.scaler = scaler_of(job.trainer)
    with job.team as team:
        job.classifier.team = team
        while epoch := team.hear():
            reseed(job.cfg.seed, epoch["number"], team.place.rank)
            with job.trainer.precision_plugin.train_step_context():
                take_epoch(job.classifier, epoch, batches)
    return math.nan


def take_epoch(classifier: Classifier, epoch: Mapping[str, Any], batches: Batches) -> None:
    """Take the steps of an epoch that the first process has handed over."""
    take_over(epoch, classifier, classifier.optimizer, classifier.scheduler, classifier.scaler)
    if batches.sampler:
        batches.sampler.set_epoch(epoch["number"])
    some, result = iter(batches), torch.empty(3, device=classifier.device)
    for _ in range(epoch["steps"]):
        classifier._take(classifier._step, some, result)


def main() -> None:
    """Follow the process that started this one, which wrote what to do to the standard input."""
    told = json.load(sys.stdin)
    end_with_parent(told["parent"])
    sys.path[:] = told["path"]
    allow(told["allowed"])
    with shielded(), one_line_errors():
        follow(DictConfig(told["cfg"]))
    fast_exit()


if __name__ == "__main__":
    main()
