"""The results of a run, as plain values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite, isnan, nan
from statistics import mean

import numpy as np

RATE = "optim.lr"


@dataclass(frozen=True)
class Result:
    """The results of one finished run.

    Curves are by finished epoch, from 1. `settings` holds the other configured values, and what was recorded of the
    code, the data and the environment.
    """

    run_id: str
    name: str
    fingerprint: str
    model: str
    optim: str
    seed: int
    data: str
    lr: str
    accuracy: float  # of the test, nan where it was not tested
    loss: float | None  # of the test, or of validation after the last epoch; None where none was recorded
    test_images: int  # 0 where unknown
    val_acc: np.ndarray
    val_loss: np.ndarray
    epoch_s: np.ndarray
    steps_per_epoch: int
    parameters: int | None
    settings: Mapping[str, str]
    command: str
    host: str
    began: int  # ms
    ended: int
    train_accuracy: float = nan  # of the last epoch, while it trained
    train_images: int = 0  # 0 where unknown
    is_exclusive: bool = True  # it had its machine to itself, so that its seconds can be compared
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the test, by name, beside accuracy and loss
    has_collapsed: bool = False  # its accuracy is one that naming a single class for every image can give

    @property
    def has_diverged(self) -> bool:
        return self.loss is not None and has_diverged(self.loss)

    @property
    def has_failed(self) -> bool:
        """Say whether it diverged or collapsed, so that its accuracy says nothing about those of other seeds."""
        return self.has_diverged or self.has_collapsed

    @property
    def is_tested(self) -> bool:
        return not isnan(self.accuracy)

    @property
    def best_val_acc(self) -> float:
        return float(np.max(self.val_acc, initial=0))


def chosen_val_loss(curve: np.ndarray, evaluate_on: str | None) -> float:
    """Return the val/loss of the weights that are tested, of the best epoch or the last; infinity where there is none.

    `choose_rate` goes by it, so that rate and weights follow the same criterion.
    """
    values = np.where(np.isfinite(curve), curve, inf)
    return float((values[-1] if evaluate_on == "last" else values.min()) if values.size else inf)


def choose_rate(losses: Mapping[str, Sequence[float]]) -> tuple[str, dict[str, float]]:
    """Return the learning rate of the lowest mean loss, and the mean of each; `losses` are by rate, one for a seed."""
    means = {lr: mean(values) for lr, values in losses.items()}
    return min(means, key=lambda lr: means[lr]), means


def has_diverged(loss: float) -> bool:
    """Say whether a stored loss is nan or infinity, which a store writes as its largest number."""
    return not isfinite(loss) or loss > 1e300


@dataclass(frozen=True)
class Predictions:
    """What one run predicted for the test images: class indices (N,), labels (N,), and the misclassified images."""

    predicted: np.ndarray
    labels: np.ndarray
    classes: Sequence[str] = ()
    images: Mapping[int, np.ndarray] = field(default_factory=dict)  # by row, uint8 (H, W)
    confidence: np.ndarray | None = None  # the probability of what was predicted, (N,)

    @property
    def correct(self) -> np.ndarray:
        return self.predicted == self.labels

    def is_of(self, labels: np.ndarray, images: Mapping[int, np.ndarray]) -> bool:
        """Say whether these are labels (N,) and images, some by row, of the same test set, as far as is stored."""
        both = self.images.keys() & images.keys()
        return np.array_equal(self.labels, labels) and all(
            np.array_equal(self.images[row], images[row]) for row in both
        )


Predict = Callable[[Result], Predictions | None]


def mark_collapsed(results: Sequence[Result], predict: Predict) -> list[Result]:
    """Return the results of one data set, marked where an accuracy is within chance of naming one class for all images.

    The shares of the classes are those of the labels stored with any run; without these nothing is marked. That of a
    run that was not tested is its best validation accuracy.
    """
    stored = next((found for result in results if (found := predict(result))), None)
    if stored is None:
        return list(results)
    share = np.unique_counts(stored.labels).counts.max() / len(stored.labels)
    limit = share + 1.96 * np.sqrt(share * (1 - share) / len(stored.labels))
    return [
        replace(result, has_collapsed=bool(share < 1 and not result.has_diverged and _accuracy(result) <= limit))
        for result in results
    ]


def _accuracy(result: Result) -> float:
    return result.accuracy if result.is_tested else result.best_val_acc
