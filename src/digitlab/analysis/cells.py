"""A cell: the runs of one network with one optimizer over several seeds."""

from dataclasses import dataclass, field
from functools import cached_property
from math import nan
from statistics import mean, median

import numpy as np

from digitlab.analysis.records import Result
from digitlab.analysis.statistics import t_interval, wilson

ALPHA = 0.05


@dataclass
class Cell:
    """The runs of one network with one optimizer, one for each seed, in the order of the seeds."""

    model: str
    optim: str
    variant: str  # what else was swept: "data.batch_size=64", or nothing
    runs: list[Result]
    rates: list["Rate"] = field(default_factory=list)  # the learning rates that were tried, if more than one
    p_best: float = nan  # p-value of being at least as good as the best cell; nan for that cell and where untested
    is_best: bool = False

    @property
    def is_tied(self) -> bool:
        """Say whether the cell is statistically indistinguishable from the best one."""
        return not self.is_best and not self.p_best < ALPHA

    @property
    def name(self) -> str:
        return f"{self.model}/{self.arm}"

    @property
    def arm(self) -> str:
        """What is compared for one network: the optimizer and the other swept settings."""
        return " ".join(filter(None, (self.optim, self.variant)))

    @property
    def n(self) -> int:
        return len(self.runs)

    @property
    def accuracies(self) -> dict[int, float]:
        return {run.seed: run.accuracy for run in self.runs}

    @property
    def accuracy(self) -> float:
        return mean(run.accuracy for run in self.runs)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy: Student's over seeds, or Wilson's over the test images of a single run."""
        if self.n > 1:
            return t_interval([run.accuracy for run in self.runs])
        (run,) = self.runs
        return wilson(round(run.accuracy * run.test_images), run.test_images)

    @property
    def loss(self) -> float:
        return mean(run.loss for run in self.runs) if not self.diverged else nan

    @property
    def diverged(self) -> int:
        return sum(run.has_diverged for run in self.runs)

    @property
    def parameters(self) -> int | None:
        return self.runs[-1].parameters

    @property
    def curves(self) -> np.ndarray:
        """The validation accuracies, (seeds, epochs); nan after a run stopped."""
        values = np.full((self.n, max(run.val_acc.size for run in self.runs)), nan)
        for row, run in zip(values, self.runs, strict=True):
            row[: run.val_acc.size] = run.val_acc
        return values

    @property
    def epochs(self) -> float:
        return median(len(run.val_acc) for run in self.runs)

    @property
    def timed(self) -> list[Result]:
        """The runs that had their machine to themselves, so that their seconds can be compared."""
        return [run for run in self.runs if run.is_exclusive and run.epoch_s.size]

    @property
    def epoch_s(self) -> float:
        return median(float(np.median(run.epoch_s)) for run in self.timed) if self.timed else nan

    @property
    def seconds(self) -> float:
        """The median over runs of the seconds of all training epochs."""
        return median(float(np.sum(run.epoch_s)) for run in self.timed) if self.timed else nan


@dataclass(frozen=True)
class Rate:
    """One learning rate tried for a network with an optimizer, and its validation accuracies."""

    lr: str
    values: list[float]  # the best val/acc of each seed
    diverged: int  # seeds
    is_chosen: bool
