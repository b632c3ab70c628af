"""A cell: the runs of one network with one optimizer over several seeds."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import nan
from statistics import mean, median, variance
from typing import TypeVar

import numpy as np

from digitlab.analysis.records import Result
from digitlab.analysis.statistics import accuracy_interval, t_interval

T = TypeVar("T")
ALPHA = 0.05

DISTURBED = 1.5  # so many times as long as another one an epoch of the same work takes where other programs run


@dataclass
class Cell:
    """The runs of one network with one optimizer, one for each seed, in the order of the seeds."""

    model: str
    optim: str
    variant: str  # what else was swept: "data.batch_size=64", or nothing
    runs: list[Result]
    rates: list["Rate"] = field(default_factory=list)  # the learning rates that were tried, if more than one
    p_best: float = nan  # p-value of being at least as good as the best cell; nan for that cell and where untested
    p_new: float = nan  # the same on other images of the same kind; nan where the images do not matter, or are unknown
    p_equivalent: float = nan  # p-value of a difference to the best of the margin or more; nan where none is given
    is_best: bool = False
    is_held_out: bool = False  # its learning rate was chosen in runs that did not read the test images

    @property
    def is_equivalent(self) -> bool:
        return self.p_equivalent < ALPHA

    @property
    def is_sound(self) -> bool:
        """Say whether no run diverged or collapsed; only such cells are compared."""
        return not self.failed

    @property
    def is_tied(self) -> bool:
        """Say whether the cell is statistically indistinguishable from the best one."""
        return self.is_sound and not self.is_best and not self.p_best < ALPHA

    @property
    def name(self) -> str:
        return "/".join(filter(None, (self.model, self.arm)))

    @property
    def arm(self) -> str:
        """What is compared for one network: the optimizer and the other swept settings."""
        return " ".join(filter(None, (self.optim, self.variant)))

    @property
    def n(self) -> int:
        return len(self.runs)

    @property
    def accuracies(self) -> dict[int, float]:
        """The accuracies by seed of the runs that did not fail."""
        return {run.seed: run.accuracy for run in self.runs if not run.has_failed}

    @property
    def accuracy(self) -> float:
        """The mean accuracy of the runs that did not fail; nan where all did."""
        return mean(self.accuracies.values()) if self.accuracies else nan

    @property
    def variance(self) -> float:
        """The variance of the accuracies over seeds; nan for fewer than two."""
        return variance(self.accuracies.values()) if len(self.accuracies) > 1 else nan

    @property
    def step(self) -> float:
        """The accuracy that one test image is worth; 0 where their number is unknown."""
        return 1 / self.runs[0].test_images if self.runs[0].test_images else 0.0

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy: Student's over seeds, or Wilson's over the test images of a single run."""
        values = list(self.accuracies.values())
        images = self.runs[0].test_images
        if len(values) > 1:
            return t_interval(values, step=self.step)
        return accuracy_interval(values[0], images) if values and images else (nan, nan)

    @property
    def loss(self) -> float:
        losses = [run.loss for run in self.runs if run.loss is not None]
        return mean(losses) if losses and not self.diverged else nan

    @property
    def metrics(self) -> dict[str, list[float]]:
        """What else was measured of the test by the runs that did not fail, by name."""
        sound = [run.metrics for run in self.runs if not run.has_failed]
        return {name: [of[name] for of in sound if name in of] for name in sorted(set().union(*sound))}

    @property
    def diverged(self) -> int:
        return sum(run.has_diverged for run in self.runs)

    @property
    def failed(self) -> int:
        """How many runs diverged or collapsed."""
        return sum(run.has_failed for run in self.runs)

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
    def is_disturbed(self) -> bool:
        """Say whether other programs seem to have taken time: epochs after each run's first, which warms up, differ."""
        seconds = np.concatenate([run.epoch_s[1:] for run in self.timed]) if self.timed else np.empty(0)
        seconds = seconds[np.isfinite(seconds)]
        return len(seconds) > 1 and float(seconds.max()) > max(DISTURBED * float(seconds.min()), 0.2)

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
    loss: float  # mean val/loss, by which the rate is chosen
    failed: int  # seeds that diverged or collapsed
    is_chosen: bool


def name_unusual(values: Mapping[str, T], say: Callable[[str, T], str]) -> tuple[T, str]:
    """Return what most cells have of `values`, by name, and the others in words, at most three by themselves."""
    (usual, _), *_ = Counter(values.values()).most_common(1)
    unusual = [say(name, value) for name, value in values.items() if value != usual]
    return usual, "; ".join(unusual) if len(unusual) <= 3 else f"{len(unusual)} cells have others"
