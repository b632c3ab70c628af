"""Figures of a report."""

import textwrap
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from digitlab.plots.image_grid import image_grid, shorten
from digitlab.plots.style import BLUES, Figure, line_styles, scale_accuracy, scale_cost, set_title, styled, wrap


@styled
def shared_mistakes(
    images: np.ndarray, labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], title: str
) -> Figure:
    """Draw the images (N, H, W), over each what several networks predicted (n, N), not the label (N,)."""
    texts = []
    for label, column in zip(labels, predicted.T, strict=True):
        counts = {each: int(np.sum(column == each)) for each in column if each != label}
        wrong = ", ".join(
            shorten(classes[int(each)]) + (f" ({count}×)" if count > 1 else "") for each, count in counts.items()
        )
        texts.append(f"{wrong}, not {shorten(classes[int(label)])}")
    return image_grid(images, texts, 8, title)


@styled
def learning_curves(panels: Mapping[str, Mapping[str, np.ndarray]], title: str, points: Container[str] = ()) -> Figure:
    """Draw validation accuracy over finished epochs: a panel for each network, a line for each optimizer.

    Values are (seeds, epochs), nan after a run stopped. The line is their mean, the band is from the lowest seed to
    the highest. Those named in `points` have markers only. Panels share their axes, on which the error is logarithmic.
    """
    fig, axes, looks = _panels(panels, title)
    for ax, (network, curves_of) in zip(axes, panels.items(), strict=False):
        ax.set_title(wrap(network, 2.2, "medium"), size="medium")
        for name, values in curves_of.items():
            trained = ~np.isnan(values).all(axis=0)
            steps, values = np.flatnonzero(trained) + 1, values[:, trained]
            if name in points:
                ax.plot(steps, np.nanmean(values, axis=0), label=name, **{**looks[name], "linestyle": "none"})
                continue
            every = -(-len(steps) // 12)
            ax.plot(steps, np.nanmean(values, axis=0), label=name, markevery=every, **looks[name])
            low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            ax.fill_between(steps, low, high, color=looks[name]["color"], alpha=0.18, linewidth=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    every_value = np.concatenate([values.ravel() for of in panels.values() for values in of.values()])
    _label(fig, axes, "finished epochs", "validation accuracy", every_value)
    return fig


@styled
def rate_sensitivity(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]], int]]], title: str
) -> Figure:
    """Draw validation accuracy against the learning rate: a panel for each network, a line for each optimizer.

    Values are (rates, accuracies of each rate's seeds, index of the chosen rate). The line is their mean, the bars are
    from the lowest seed to the highest, the chosen rate has a ring.
    """
    fig, axes, looks = _panels(panels, title)
    for ax, (network, arms) in zip(axes, panels.items(), strict=False):
        ax.set_title(wrap(network, 2.2, "medium"), size="medium")
        for name, (rates, values, chosen) in arms.items():
            means = np.array([np.mean(each) for each in values])
            bars = [[mean - min(each), max(each) - mean] for mean, each in zip(means, values, strict=True)]
            ax.errorbar(rates, means, np.transpose(bars), label=name, elinewidth=1, **looks[name])
            ring = {"marker": "o", "markersize": 13, "markerfacecolor": "none", "markeredgecolor": "black"}
            ax.plot(rates[chosen], means[chosen], linestyle="none", **ring)
        scale_cost(ax)
    every_value = [
        value for arms in panels.values() for _, values, _ in arms.values() for each in values for value in each
    ]
    _label(fig, axes, "learning rate", "best validation accuracy", every_value)
    return fig


@styled
def accuracy_matrix(
    values: np.ndarray, texts: Sequence[Sequence[str]], rows: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    """Draw accuracies (R, C), nan for none, as a heat map with `texts` on it: the darker the better."""
    width = 1.8 + 1.35 * len(columns)
    title = wrap(title, width - 0.3)
    height = 1.2 + 0.55 * len(rows) + 0.2 * title.count("\n")
    fig = Figure(figsize=(width, height), layout="constrained")
    fig.suptitle(title)
    ax = fig.subplots()
    shades = -np.log10(np.maximum(1 - np.asarray(values, dtype=float), 1e-4))
    norm = Normalize(np.nanmin(shades), max(np.nanmax(shades), np.nanmin(shades) + 0.1))
    image = ax.imshow(np.ma.masked_invalid(shades), cmap=BLUES, norm=norm, aspect="auto")
    light = image.to_rgba(np.ma.masked_invalid(shades))[..., :3] ** 2.2 @ [0.2126, 0.7152, 0.0722]
    for (row, column), luminance in np.ndenumerate(light):
        color = "white" if luminance < 0.18 else "black"  # at 0.18 both have the same contrast
        ax.text(column, row, texts[int(row)][int(column)], ha="center", va="center", color=color, size=8)
    ax.set_xticks(range(len(columns)), [textwrap.fill(name, 18) for name in columns])
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)
    return fig


@styled
def trade_offs(
    costs: Mapping[str, tuple[Sequence[float], Sequence[int]]],
    accuracies: Sequence[tuple[float, float, float]],
    networks: Sequence[str],
    arms: Sequence[str],
    title: str,
) -> Figure:
    """Draw accuracies (mean, low, high) against each of `costs`, with a marker by optimizer and a number by network.

    `costs` gives for each axis label the values, nan for none, and the indices of the Pareto front, which is drawn as
    a staircase.
    """
    fig = Figure(figsize=(1.6 + 4 * len(costs), 4.4), layout="constrained")
    set_title(fig, title)
    axes = np.atleast_1d(fig.subplots(1, len(costs), sharey=True))
    looks, numbers = line_styles(arms), {name: number for number, name in enumerate(dict.fromkeys(networks), 1)}
    means, lows, highs = np.transpose(accuracies)
    for ax, (name, (values, front)) in zip(axes, costs.items(), strict=True):
        ax.step([values[i] for i in front], means[list(front)], where="post", color="0.6", linewidth=4, alpha=0.5,
                label="Pareto front")  # fmt: skip
        for i, (value, arm) in enumerate(zip(values, arms, strict=True)):
            if np.isfinite(value):
                look = looks[arm] | {"linestyle": "none", "markersize": 6}
                ax.errorbar(value, means[i], [[means[i] - lows[i]], [highs[i] - means[i]]], elinewidth=0.6, **look)
        scale_cost(ax)
        ax.set_xlabel(name)
        ax.grid()
    # Very wide intervals are cut off: the axis shows up to three times the largest error, and a third of the smallest.
    margins = 1 - np.array([3, 1 / 3]) * [1 - means.min(), 1 - means.max()]
    scale_accuracy(axes[0], np.clip([*means, *lows, *highs], *margins))
    axes[0].set_ylabel("test accuracy")
    for ax, (values, _) in zip(axes, costs.values(), strict=True):
        _number(ax, values, means, [numbers[name] for name in networks])
    handles = [Line2D([], [], label=arm, **{**look, "linestyle": "none"}) for arm, look in looks.items()]
    handles += [Line2D([], [], color="0.6", linewidth=4, alpha=0.5, label="Pareto front")]
    handles += [Line2D([], [], linestyle="none", label=f"{number}  {name}") for name, number in numbers.items()]
    fig.legend(handles=handles, loc="outside right center")
    return fig


def _number(ax: Axes, x: Sequence[float], y: Sequence[float], numbers: Sequence[int]) -> None:
    """Write its number beside each point, only once where points of the same number are close together."""
    places: list[tuple[int, np.ndarray]] = []
    for point, number in zip(zip(x, y, strict=True), numbers, strict=True):
        place = ax.transData.transform(point)
        near = any(known == number and np.hypot(*(place - other)) < 16 for known, other in places)
        if np.isfinite(point).all() and not near:
            ax.annotate(str(number), point, (5, 3), textcoords="offset points", size=8)
            places.append((number, place))


def _panels(panels: Mapping[str, Mapping], title: str) -> tuple[Figure, list[Axes], dict[str, dict[str, Any]]]:
    """Return a figure with shared axes for the panels, and the style of each line in all of them."""
    columns = min(len(panels), 4 if len(panels) > 6 else 3)
    rows = -(-len(panels) // columns)
    fig = Figure(figsize=(max(2.9 * columns, 5.5), 0.9 + 2.4 * rows), layout="constrained")
    set_title(fig, title)
    axes = list(fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for ax in axes[len(panels) :]:
        ax.remove()
    return fig, axes[: len(panels)], line_styles([name for lines in panels.values() for name in lines])


def _label(fig: Figure, axes: Sequence[Axes], across: str, up: str, values: Sequence[float] | np.ndarray) -> None:
    scale_accuracy(axes[0], values)
    for ax in axes:
        ax.grid()
        ax.tick_params(labelbottom=True)
        ax.set_xlabel(across)
        place = ax.get_subplotspec()
        if place and place.is_first_col():
            ax.set_ylabel(up)
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, handlelength=4)
