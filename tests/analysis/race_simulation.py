"""Simulate races and print the table of docs/statistics.md: PYTHONPATH=src python tests/analysis/race_simulation.py"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from digitlab.analysis import race

STEP = 1e-4  # one of 10,000 test images
# docs/comparison.md: means and half 95 % intervals of three seeds of fifteen cells
MEANS = np.array([9920, 9919, 9907, 9907, 9904, 9901, 9900, 9900, 9832, 9827, 9817, 9710, 9705, 9635, 9419]) / 1e4
HALVES = np.array([15, 27, 11, 12, 12, 5, 22, 21, 14, 41, 48, 17, 35, 24, 19]) / 1e4
SPREADS = HALVES * np.sqrt(3) / stats.t.ppf(0.975, 2)
EQUAL = np.full(15, 0.99)


class Raced(NamedTuple):
    """How races ended: which cells were left, bool (tries, K), and how many runs each took, (tries,)."""

    left: np.ndarray
    runs: np.ndarray


def simulate(means: np.ndarray, tries: int, max_seeds: int = 20, alpha: float | None = None, seed: int = 0) -> Raced:
    """Race cells of true `means` (K,) and the published spreads; `alpha` in place of the shared error of each look."""
    draw = np.random.default_rng(seed)
    values = np.round(means + draw.normal(size=(max_seeds, tries, len(means))) * SPREADS[: len(means)], 4)
    left, counts = np.ones(values.shape[1:], bool), np.zeros(values.shape[1:])
    mean, variance = np.zeros((2, *left.shape))
    for n in race.looks(max_seeds):
        runs = left & (left.sum(axis=1, keepdims=True) > 1)
        counts = np.where(runs, n, counts)
        mean = np.where(runs, values[:n].mean(axis=0), mean)
        variance = np.where(runs, values[:n].var(axis=0, ddof=1), variance)
        p, _ = race.look(mean, variance, counts, left, STEP)
        left = left & ~(p < (alpha or race.level(max_seeds)))
    return Raced(left, counts.sum(axis=1))


def lost(raced: Raced, means: np.ndarray) -> float:
    """Return how often the truly best was thrown out; where all are equal, the cell that was most often."""
    best = means == means.max()
    return float((1 - raced.left[:, best].mean(axis=0)).max())


def main(tries: int = 20_000) -> None:
    print(
        "| cells | seeds at most | error of each look | the best is thrown out | cells left | runs, of those of all |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, means in {"published": MEANS, "all equal": EQUAL}.items():
        for max_seeds, alpha in ((5, None), (10, None), (20, None), (20, 0.05)):
            raced = simulate(means, tries, max_seeds, alpha)
            error, all_runs = lost(raced, means), len(means) * max_seeds
            monte_carlo = (error * (1 - error) / tries) ** 0.5
            print(f"| {name} | {max_seeds} | {alpha or race.level(max_seeds):.4f} | {error:.4f} ± {monte_carlo:.4f} | "
                  f"{raced.left.sum(axis=1).mean():.1f} | {raced.runs.mean():.0f} of {all_runs}, "
                  f"{raced.runs.mean() / all_runs:.0%} |")  # fmt: skip


if __name__ == "__main__":
    main()
