"""Tune without the test images: choose a learning rate by validation, then test it with other seeds."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import inf
from statistics import mean

import numpy as np

from digitlab.analysis.records import chosen_val_loss
from digitlab.config.errors import UserError
from digitlab.platform import console
from digitlab.sweep.plan import Compose, SweepCell
from digitlab.tracking import queries
from digitlab.tracking.store import Store

UNTESTED = "evaluate_on=none"
CHOSEN = ("optim.lr", "seed")  # keys of the overrides in which the runs of one choice may differ


def without_test(cells: Sequence[Sequence[str]], compose: Compose) -> list[list[str]]:
    """Return the overrides of the cells, changed so that they do not read the test images.

    Raises UserError where one does not say by which weights it will be tested.
    """
    for cell in cells:
        if compose(cell).evaluate_on == "none":
            raise UserError(f"{UNTESTED}: what sweep.fresh_seeds chooses is tested; allowed: best, last")
    return [[*cell, UNTESTED] for cell in cells]


def fresh_seeds(cells: Sequence[SweepCell], count: int) -> range:
    """Return `count` seeds that no cell has."""
    first = max(cell.seed for cell in cells) + 1
    return range(first, first + count)


def choices(cells: Sequence[SweepCell]) -> dict[tuple[str, ...], list[SweepCell]]:
    """Return the cells of each choice to be made, by the overrides that they have in common."""
    found = defaultdict(list)
    for cell in cells:
        found[tuple(_but(cell.overrides, *CHOSEN))].append(cell)
    return dict(found)


def chosen_cells(store: Store, cells: Sequence[SweepCell], count: int, compose: Compose) -> list[list[str]]:
    """Return the overrides of the runs to be tested: each chosen learning rate with `count` fresh seeds.

    A rate is chosen as weights are: by the lowest mean val/loss, of the epoch whose weights will be tested.
    """
    losses = queries.histories(store, [cell.run_id for cell in cells if cell.run_id], "val/loss")
    found = []
    for common, tried in choices(cells).items():
        example = tried[0]
        evaluate_on = compose(_but(example.overrides)).evaluate_on
        by_rate: dict[str, list[float]] = defaultdict(list)
        for cell in tried:
            curve = losses.get(cell.run_id or "", {})
            values = np.array([curve[epoch] for epoch in sorted(curve) if epoch > 0])
            by_rate[cell.lr].append(chosen_val_loss(values, evaluate_on))
        means = {lr: mean(values) for lr, values in by_rate.items()}
        chosen = min(means, key=lambda lr: means[lr])
        name = " ".join(_but(common, "sweep")) or example.name
        if means[chosen] == inf:
            console.warn(f"{name}: every learning rate diverged with some seed, so none is tested")
            continue
        console.say(f"{name}: optim.lr={chosen} of {len(means)} tried has the lowest val/loss, {means[chosen]:.4f}")
        of_rate = next(_but(cell.overrides, "seed") for cell in tried if cell.lr == chosen)
        found += [[*of_rate, f"seed={seed}"] for seed in fresh_seeds(cells, count)]
    return found


def _but(overrides: Iterable[str], *keys: str) -> list[str]:
    """Return the overrides other than those of `keys` and the one that leaves the test out."""
    return [each for each in overrides if each != UNTESTED and each.lstrip("+").partition("=")[0] not in keys]
