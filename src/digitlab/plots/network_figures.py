"""Figures that compare optimizers over several networks."""

from collections.abc import Mapping, Sequence

import numpy as np

from digitlab.plots.style import Figure, line_styles, scale_accuracy, set_title, styled


@styled
def critical_difference(ranks: Mapping[str, float], difference: float, title: str) -> Figure:
    """Draw mean ranks on an axis, best at the left; bars join those that differ by less than `difference`.

    Demšar 2006, "Statistical comparisons of classifiers over multiple data sets".
    """
    names = sorted(ranks, key=ranks.__getitem__)
    groups = _joined([ranks[name] for name in names], difference)
    fig = Figure(figsize=(6.4, 1.5 + 0.16 * len(groups) + 0.26 * len(names)), layout="constrained")
    set_title(fig, title)
    ax = fig.subplots()
    half, lowest = (len(names) + 1) // 2, -0.35 * len(groups) - 0.4
    left, right = 1, len(names)
    for index, name in enumerate(names):
        is_left = index < half
        height = lowest - 0.6 * (index if is_left else len(names) - 1 - index) - 0.3
        edge = left - 0.1 if is_left else right + 0.1
        ax.plot([ranks[name], ranks[name], edge], [0, height, height], color="0.3", linewidth=1)
        text = f"{name}  {ranks[name]:.2f}" if is_left else f"{ranks[name]:.2f}  {name}"
        ax.text(edge, height, f" {text} ", ha="right" if is_left else "left", va="center")
    for index, (first, last) in enumerate(groups):
        ends = [ranks[names[first]] - 0.03, ranks[names[last]] + 0.03]
        ax.plot(ends, [-0.35 * (index + 1)] * 2, color="black", linewidth=4, solid_capstyle="butt")
    ax.plot([left, left + difference], [0.55, 0.55], color="black", linewidth=1.5, marker="|", markersize=7)
    ax.text(left + difference / 2, 0.7, f"critical difference {difference:.2f}", ha="center", va="bottom")
    ax.set_xlim(left - 0.1, max(right, left + difference) + 0.1)
    ax.set_ylim(lowest - 0.6 * half - 0.1, 1.3)
    ax.spines["bottom"].set_position(("data", 0))
    ax.xaxis.tick_top()
    ax.set_xticks(range(left, right + 1))
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    return fig


@styled
def performance_profiles(profiles: Mapping[str, Sequence[Sequence[float]]], title: str) -> Figure:
    """Draw for each optimizer the share of its runs above each accuracy, the mean over networks.

    Values are the accuracies of the runs of each network. Agarwal et al. 2021, "Deep reinforcement learning at the edge
    of the statistical precipice".
    """
    fig = Figure(figsize=(6.4, 3.6), layout="constrained")
    set_title(fig, title)
    ax = fig.subplots()
    looks = line_styles(list(profiles))
    every = np.unique([value for groups in profiles.values() for group in groups for value in group])
    for name, groups in profiles.items():
        above = np.mean([[np.mean(np.array(group) >= value) for value in every] for group in groups], axis=0)
        look = looks[name] | {"marker": None}
        # Up to the lowest accuracy of all, every run is above.
        ax.step([every[0], *every], [1, *above], where="pre", label=name, **look)
    scale_accuracy(ax, every, "x")
    ax.set_xlabel("test accuracy")
    ax.set_ylabel("share of runs at or above it")
    ax.set_ylim(0, 1.02)
    ax.grid()
    ax.legend(loc="lower left", handlelength=4)
    return fig


def _joined(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Return first and last index of each longest group of rising `ranks` that differ by less than `difference`."""
    groups: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(index for index, other in enumerate(ranks) if other - rank < difference)
        if last > first and not any(last <= end for _, end in groups):
            groups.append((first, last))
    return groups
