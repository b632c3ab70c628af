"""Figures of data, training, mistakes and comparisons: plain values in, a matplotlib figure out, nothing saved."""

import textwrap
from collections.abc import Callable, Container, Mapping, Sequence
from functools import wraps
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

# Okabe-Ito colours; line style and marker tell the series apart without colour.
_SERIES = {
    "train": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "val": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    "test": {"color": "#F0E442", "linestyle": "none", "marker": "*", "markersize": 13, "markeredgecolor": "black"},
}
# The same for any number of them; the order of the markers differs from that of the lines.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "black")
_LINES = ("-", "--", ":", "-.", (0, (7, 2)), (0, (3, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_ERRORS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))  # where ticks may stand in a decade, as sparse as will do
# Blues without its near-white end: one mistake must differ from the white of no mistake.
_BLUES = ListedColormap(colormaps["Blues"](np.linspace(0.15, 1, 256)), name="visible_blues").with_extremes(bad="white")

_STYLE = {
    "figure.dpi": 120,
    "font.size": 9,
    "text.parse_math": False,  # a "$" in a class name or title is a dollar sign, not a formula
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.5",
    "axes.formatter.useoffset": False,
    "grid.color": "0.9",
    "legend.frameon": False,
    "lines.markersize": 4.5,
    "figure.constrained_layout.w_pad": 0.07,  # inches
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.use": False,  # each figure says how it is laid out, whatever a user's matplotlibrc has
    "figure.autolayout": False,
}


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Give what `draw` returns our style, and its layout at once: savefig would draw all of it twice to find that."""

    @wraps(draw)
    @rc_context(_STYLE)
    def drawn(*args: Any, **kwargs: Any) -> Figure:
        figure = draw(*args, **kwargs)
        if engine := figure.get_layout_engine():
            engine.execute(figure)
            figure.set_layout_engine(None)
        return figure

    return drawn


@_styled
def samples(images: np.ndarray, labels: Sequence[int], classes: Sequence[str], title: str) -> Figure:
    """Draw the first 40 of the uint8 images (N, 28, 28), the class name over each."""
    return _grid(images[:40], [_short(classes[label]) for label in labels[:40]], 8, title)


@_styled
def curves(history: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str) -> Figure:
    """Draw loss and accuracy over finished epochs; a test point, if there is one, is a star.

    Keys are "train/loss", "val/acc" and so on, any may be missing; values are (steps, values).
    Values that are not finite leave a gap, the legend counts them. The untrained network's values at epoch 0 may lie
    outside the view: the trained ones have the room.
    """
    fig = Figure(figsize=(9, 3.4), layout="constrained")
    fig.suptitle(title)
    loss, accuracy = fig.subplots(1, 2, sharex=True)
    for ax, metric, name in [(loss, "loss", "loss"), (accuracy, "acc", "accuracy")]:
        for series, look in _SERIES.items():
            steps, values = (np.asarray(column, dtype=float) for column in history.get(f"{series}/{metric}", ([], [])))
            if values.size:
                finite = np.isfinite(values)
                label = series if finite.all() else f"{series} ({np.sum(~finite)} not finite)"
                # Markers keep a single epoch visible; on long runs one on each point would hide the line style.
                every = -(-values.size // 25)
                ax.plot(steps, np.where(finite, values, np.nan), label=label, markevery=every, **look)
        ax.set(xlabel="finished epochs", ylabel=name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        ax.grid()
        if ax.lines:
            ax.legend()
            _look_at_trained(ax)
    return fig


def _look_at_trained(ax: Axes) -> None:
    points = np.concatenate([line.get_xydata() for line in ax.lines])
    trained = points[(points[:, 0] >= 1) & np.isfinite(points[:, 1]), 1]
    if trained.size:
        margin = 0.08 * np.ptp(trained) or 0.05
        ax.set_ylim(trained.min() - margin, trained.max() + margin)


@_styled
def confusion(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Draw the counts (C, C), rows true, columns predicted, coloured by share of the row on a log scale."""
    matrix, size = np.asarray(matrix), len(classes)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    with_counts = size <= 20
    side = max(2 + size * (0.42 if with_counts else 0.25), 4.5)
    fig = Figure(figsize=(side + 0.8, side), layout="compressed")
    ax = fig.subplots()
    # Log: a linear scale shows the diagonal only. Fixed ends: the figures of two runs compare.
    norm = LogNorm(0.001, 1, clip=True)
    image = ax.imshow(np.ma.masked_equal(share, 0), cmap=_BLUES, norm=norm)
    bar = fig.colorbar(image, shrink=0.8, label="share of the true class (log scale, white: none)")
    bar.set_ticks([0.001, 0.01, 0.1, 1], labels=["≤0.1%", "1%", "10%", "100%"])
    bar.minorticks_off()
    bar.outline.set_visible(False)
    names = [_short(name) for name in classes]
    ax.set(title=textwrap.fill(title, 60), xlabel="predicted", ylabel="true")
    ax.set_xticks(range(size), names, rotation=90 if max(map(len, names)) > 3 else 0)
    ax.set_yticks(range(size), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(True)
    if with_counts:
        colors = np.where(matrix == 0, "0.45", np.where(norm(share) > 0.65, "white", "black"))
        for (row, column), count in np.ndenumerate(matrix):
            # Out of the layout: it is inside anyway, and measuring a hundred takes time.
            ax.text(column, row, count, ha="center", va="center", color=colors[row, column], size=8, in_layout=False)
    return fig


@_styled
def mistakes(
    images: np.ndarray, labels: Sequence[int], probabilities: np.ndarray, classes: Sequence[str], title: str
) -> Figure:
    """Draw the up to 24 mistakes with the most probable wrong class; probabilities are (N, C)."""
    labels, predicted, confidence = np.asarray(labels), probabilities.argmax(axis=1), probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    worst = order[predicted[order] != labels[order]][:24]
    texts = [f"{_short(classes[predicted[i]])}, not {_short(classes[labels[i]])}: {confidence[i]:.2f}" for i in worst]
    return _grid(images[worst], texts, 6, title, empty="no mistakes")


@_styled
def shared_mistakes(
    images: np.ndarray, labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], title: str
) -> Figure:
    """Draw the images (N, H, W) and over each what several networks, `predicted` (n, N), said of it."""
    texts = []
    for label, answers in zip(labels, predicted.T, strict=True):
        counts = {answer: int(np.sum(answers == answer)) for answer in answers if answer != label}
        said = ", ".join(
            _short(classes[answer]) + (f" ({count}×)" if count > 1 else "") for answer, count in counts.items()
        )
        texts.append(f"{_short(classes[label])}, not {said}")
    return _grid(images, texts, 8, title)


@_styled
def learning_curves(panels: Mapping[str, Mapping[str, np.ndarray]], title: str, points: Container[str] = ()) -> Figure:
    """Draw validation accuracy over finished epochs: a panel for each network, a line for each optimizer.

    Values are (seeds, epochs), nan where a run had stopped: the line is their mean, the band is from the lowest seed
    to the highest; those named in `points` are markers alone. Panels share their axes, on which the error is
    logarithmic.
    """
    fig, axes, looks = _panels(panels, title)
    for ax, (network, curves_of) in zip(axes, panels.items(), strict=False):
        ax.set_title(network, size="medium")
        for name, values in curves_of.items():
            trained = ~np.isnan(values).all(axis=0)
            steps, values = np.flatnonzero(trained) + 1, values[:, trained]
            if name in points:
                ax.plot(steps, np.nanmean(values, axis=0), label=name, **looks[name] | {"linestyle": "none"})
                continue
            every = -(-len(steps) // 12)
            ax.plot(steps, np.nanmean(values, axis=0), label=name, markevery=every, **looks[name])
            low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            ax.fill_between(steps, low, high, color=looks[name]["color"], alpha=0.18, linewidth=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    every_value = np.concatenate([values.ravel() for of in panels.values() for values in of.values()])
    _label(fig, axes, "finished epochs", "validation accuracy", every_value)
    return fig


@_styled
def rate_sensitivity(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]], int]]], title: str
) -> Figure:
    """Draw validation accuracy against the learning rate: a panel for each network, a line for each optimizer.

    Values are (rates, accuracies of each rate's seeds, index of the chosen rate): the line is their mean, the bars are
    from the lowest seed to the highest, a ring is around the chosen one.
    """
    fig, axes, looks = _panels(panels, title)
    for ax, (network, arms) in zip(axes, panels.items(), strict=False):
        ax.set_title(network, size="medium")
        for name, (rates, values, chosen) in arms.items():
            means = np.array([np.mean(each) for each in values])
            reach = [[mean - min(each), max(each) - mean] for mean, each in zip(means, values, strict=True)]
            ax.errorbar(rates, means, np.transpose(reach), label=name, elinewidth=1, **looks[name])
            ring = {"marker": "o", "markersize": 13, "markerfacecolor": "none", "markeredgecolor": "black"}
            ax.plot(rates[chosen], means[chosen], linestyle="none", **ring)
        _scale_cost(ax)
    every_value = [
        value for arms in panels.values() for _, values, _ in arms.values() for each in values for value in each
    ]
    _label(fig, axes, "learning rate", "best validation accuracy", every_value)
    return fig


@_styled
def accuracy_matrix(
    values: np.ndarray, texts: Sequence[Sequence[str]], rows: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    """Draw accuracies (R, C), nan where there is none, as shades with `texts` on them: the darker the better."""
    fig = Figure(figsize=(1.8 + 1.35 * len(columns), 1.2 + 0.55 * len(rows)), layout="constrained")
    fig.suptitle(textwrap.fill(title, 24 + 16 * len(columns)))
    ax = fig.subplots()
    shades = -np.log10(np.maximum(1 - np.asarray(values, dtype=float), 1e-4))
    norm = Normalize(np.nanmin(shades), max(np.nanmax(shades), np.nanmin(shades) + 0.1))
    image = ax.imshow(np.ma.masked_invalid(shades), cmap=_BLUES, norm=norm, aspect="auto")
    light = image.to_rgba(image.get_array())[..., :3] ** 2.2 @ [0.2126, 0.7152, 0.0722]
    for row, column in np.ndindex(shades.shape):
        color = "white" if light[row, column] < 0.18 else "black"  # where both have the same contrast
        ax.text(column, row, texts[row][column], ha="center", va="center", color=color, size=8)
    ax.set_xticks(range(len(columns)), [textwrap.fill(name, 18) for name in columns])
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    ax.spines[:].set_visible(False)
    return fig


@_styled
def trade_offs(
    costs: Mapping[str, tuple[Sequence[float], Sequence[int]]],
    accuracies: Sequence[tuple[float, float, float]],
    networks: Sequence[str],
    arms: Sequence[str],
    title: str,
) -> Figure:
    """Draw accuracies (mean, low, high) against each of `costs`: a marker for each optimizer, a number for a network.

    `costs` are, by the name of the axis, the values, nan for none, and the indices of the Pareto front, which is
    drawn as a staircase.
    """
    fig = Figure(figsize=(1.6 + 4 * len(costs), 4.4), layout="constrained")
    fig.suptitle(textwrap.fill(title, 20 + 40 * len(costs)))
    axes = np.atleast_1d(fig.subplots(1, len(costs), sharey=True))
    looks, numbers = _looks(arms), {name: number for number, name in enumerate(dict.fromkeys(networks), 1)}
    means, lows, highs = np.transpose(accuracies)
    for ax, (name, (values, front)) in zip(axes, costs.items(), strict=True):
        ax.step([values[i] for i in front], means[list(front)], where="post", color="0.6", linewidth=4, alpha=0.5,
                label="Pareto front")  # fmt: skip
        for i, (value, arm) in enumerate(zip(values, arms, strict=True)):
            if np.isfinite(value):
                look = looks[arm] | {"linestyle": "none", "markersize": 6}
                ax.errorbar(value, means[i], [[means[i] - lows[i]], [highs[i] - means[i]]], elinewidth=0.6, **look)
        _scale_cost(ax)
        ax.set_xlabel(name)
        ax.grid()
    # An interval may be too wide to be shown whole: no more than three times the errors there are.
    margins = 1 - np.array([3, 1 / 3]) * [1 - means.min(), 1 - means.max()]
    _scale_accuracy(axes[0], np.clip([*means, *lows, *highs], *margins))
    axes[0].set_ylabel("test accuracy")
    for ax, (values, _) in zip(axes, costs.values(), strict=True):
        _number(ax, values, means, [numbers[name] for name in networks])
    handles = [Line2D([], [], label=arm, **look | {"linestyle": "none"}) for arm, look in looks.items()]
    handles += [Line2D([], [], color="0.6", linewidth=4, alpha=0.5, label="Pareto front")]
    handles += [Line2D([], [], linestyle="none", label=f"{number}  {name}") for name, number in numbers.items()]
    fig.legend(handles=handles, loc="outside right center")
    return fig


def _number(ax: Axes, x: Sequence[float], y: Sequence[float], numbers: Sequence[int]) -> None:
    """Write its number beside each point, but once where points of the same number lie together."""
    places: list[tuple[int, np.ndarray]] = []
    for point, number in zip(zip(x, y, strict=True), numbers, strict=True):
        place = ax.transData.transform(point)
        near = any(known == number and np.hypot(*(place - other)) < 16 for known, other in places)
        if np.isfinite(point).all() and not near:
            ax.annotate(number, point, (5, 3), textcoords="offset points", size=8)
            places.append((number, place))


def _looks(names: Sequence[str]) -> dict[str, dict]:
    return {
        name: {"color": _COLORS[i % 7], "linestyle": _LINES[i % 6], "marker": _MARKERS[i % 8]}
        for i, name in enumerate(sorted(set(names)))
    }


def _panels(panels: Mapping[str, Mapping], title: str) -> tuple[Figure, list[Axes], dict[str, dict]]:
    """Return a figure with axes for the panels, which share them, and how each line looks in all."""
    columns = min(len(panels), 4 if len(panels) > 6 else 3)
    rows = -(-len(panels) // columns)
    fig = Figure(figsize=(max(2.9 * columns, 5.5), 0.9 + 2.4 * rows), layout="constrained")
    fig.suptitle(textwrap.fill(title, 40 * max(columns, 2)))
    axes = list(fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for ax in axes[len(panels) :]:
        ax.remove()
    return fig, axes[: len(panels)], _looks([name for lines in panels.values() for name in lines])


def _label(fig: Figure, axes: Sequence[Axes], across: str, up: str, values: Sequence[float]) -> None:
    _scale_accuracy(axes[0], values)
    for ax in axes:
        ax.grid()
        ax.tick_params(labelbottom=True)
        ax.set_xlabel(across)
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel(up)
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, handlelength=4)


def _scale_accuracy(ax: Axes, values: Sequence[float]) -> None:
    """Scale an axis of accuracies by the logarithm of the error: 0.99 is as far from 0.999 as 0.9 is from 0.99."""
    errors = np.clip(1 - np.asarray(values, dtype=float), 1e-4, 1)
    worst, best = 1.15 * np.nanmax(errors), np.nanmin(errors) / 1.3
    ax.set_yscale(
        "function", functions=(lambda y: -np.log10(np.maximum(1 - y, 8e-5)), lambda y: 1 - 10.0 ** -np.asarray(y))
    )
    low, high = max(1 - worst, 0), 1 - best
    ax.set_ylim(low, high)
    for mantissas in _ERRORS:
        errors = [mantissa * 10.0**-decade for decade in range(1, 5) for mantissa in mantissas]
        ticks = [1 - error for error in errors if low <= 1 - error <= high]
        if len(ticks) >= 4:
            break
    else:
        ticks = [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    ax.set_yticks(ticks, [f"{tick:.4f}".rstrip("0") for tick in ticks])
    ax.minorticks_off()


def _scale_cost(ax: Axes) -> None:
    """Scale an axis of counts or seconds by their logarithm, with ticks that are read as they stand."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    for mantissas in ((1,), (1, 3), (1, 2, 5)):
        ticks = [mantissa * 10.0**decade for decade in range(-6, 10) for mantissa in mantissas]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            break
    else:
        ticks = [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    ax.set_xticks(ticks, [f"{tick:,g}" if tick < 1e6 else f"{tick / 1e6:g} M" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlim(low, high)


def _grid(images: np.ndarray, texts: list[str], columns: int, title: str, empty: str = "no images") -> Figure:
    # At least four tiles wide: the title needs the room.
    rows, columns = max(-(-len(images) // columns), 1), max(min(columns, len(images)), 4)
    texts = [textwrap.fill(text, 20) for text in texts]
    # One mosaic, measured in image pixels: an axes for each image takes nine times as long to draw.
    tile = 31 + 3 * max((text.count("\n") + 1 for text in texts), default=1)
    mosaic = np.full((8 + rows * tile, columns * 32), 255, np.uint8)
    fig = Figure(figsize=(mosaic.shape[1] / 24, mosaic.shape[0] / 24))  # 5 x 5 dots a pixel: sharp
    fig.suptitle(title, y=1 - 2 / mosaic.shape[0])
    ax = fig.add_axes((0, 0, 1, 1), frameon=False, xticks=(), yticks=())
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        y, x = 8 + (i // columns + 1) * tile - 30, i % columns * 32 + 2
        height, width = image.shape
        mosaic[y : y + 28, x : x + 28] = image[np.ix_(np.arange(28) * height // 28, np.arange(28) * width // 28)]
        ax.text(x + 13.5, y - 1.5, text, ha="center", fontsize=8)
    # Fixed ends: the pixels as they are, a faint image stays faint.
    ax.imshow(mosaic, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    if not texts:
        fig.text(0.5, 0.4, empty, ha="center", va="center", fontsize=12)
    return fig


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:7]}…{name[-6:]}"
