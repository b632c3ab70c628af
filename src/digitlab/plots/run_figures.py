"""Figures of one run."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from digitlab.plots.image_grid import image_grid, shorten
from digitlab.plots.style import BLUES, Figure, set_title, styled, wrap

# Okabe-Ito colours; line style and marker distinguish the series without colour.
_SERIES = {
    "train": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "val": {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    "test": {"color": "#F0E442", "linestyle": "none", "marker": "*", "markersize": 13, "markeredgecolor": "black"},
}


@styled
def samples(images: np.ndarray, labels: Sequence[int], classes: Sequence[str], title: str) -> Figure:
    """Draw the first 40 of the uint8 images (N, H, W), the class name over each."""
    return image_grid(images[:40], [shorten(classes[label]) for label in labels[:40]], 8, title)


@styled
def curves(history: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str) -> Figure:
    """Draw loss and accuracy over finished epochs; a test result is a star.

    `history` maps "train/loss", "val/acc" and so on, of which any may be missing, to (steps, values). Values that are
    not finite leave a gap and are counted in the legend. The axes are scaled to the values from epoch 1 on; those of
    the untrained network may be outside.
    """
    fig = Figure(figsize=(9, 3.4), layout="constrained")
    set_title(fig, title)
    loss, accuracy = fig.subplots(1, 2, sharex=True)
    for ax, metric, name in [(loss, "loss", "loss"), (accuracy, "acc", "accuracy")]:
        for series, look in _SERIES.items():
            steps, values = (np.asarray(column, dtype=float) for column in history.get(f"{series}/{metric}", ([], [])))
            if values.size:
                finite = np.isfinite(values)
                label = series if finite.all() else f"{series} ({np.sum(~finite)} not finite)"
                # Markers make a single epoch visible; on long runs a marker at each point would hide the line style.
                every = -(-values.size // 25)
                ax.plot(steps, np.where(finite, values, np.nan), label=label, markevery=every, **look)
        ax.set(xlabel="finished epochs", ylabel=name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        ax.grid()
        if ax.lines:
            ax.legend()
            _scale_to_trained(ax)
    return fig


def _scale_to_trained(ax: Axes) -> None:
    points = np.concatenate([line.get_xydata() for line in ax.lines])
    trained = points[(points[:, 0] >= 1) & np.isfinite(points[:, 1]), 1]
    if trained.size:
        margin = 0.08 * np.ptp(trained) or 0.05
        ax.set_ylim(trained.min() - margin, trained.max() + margin)


@styled
def confusion(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Draw the counts (C, C), rows true, columns predicted, coloured by their share of the row on a log scale."""
    matrix, size = np.asarray(matrix), len(classes)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    with_counts = size <= 20
    side = max(2 + size * (0.42 if with_counts else 0.25), 4.5)
    fig = Figure(figsize=(side + 0.8, side), layout="compressed")
    ax = fig.subplots()
    # A linear scale would show the diagonal only. Its ends are fixed, so that the figures of two runs compare.
    norm = LogNorm(0.001, 1, clip=True)
    image = ax.imshow(np.ma.masked_equal(share, 0), cmap=BLUES, norm=norm)
    bar = fig.colorbar(image, shrink=0.8, label="share of the true class (log scale, white: none)")
    bar.set_ticks([0.001, 0.01, 0.1, 1], labels=["≤0.1%", "1%", "10%", "100%"])
    bar.minorticks_off()
    bar.outline.set_visible(False)
    names = [shorten(name) for name in classes]
    ax.set(title=wrap(title, side - 0.5), xlabel="predicted", ylabel="true")
    ax.set_xticks(range(size), names, rotation=90 if max(map(len, names)) > 3 else 0)
    ax.set_yticks(range(size), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(True)
    if with_counts:
        colors = np.where(matrix == 0, "0.45", np.where(norm(share) > 0.65, "white", "black"))
        for (row, column), count in np.ndenumerate(matrix):
            # Not in the layout: the texts are inside anyway, and measuring a hundred takes time.
            ax.text(column, row, count, ha="center", va="center", color=colors[row, column], size=8, in_layout=False)
    return fig


def predictions(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], on: str, of: str
) -> dict[str, Figure]:
    """Draw what was predicted of labelled images, by name: the confusion matrix and the most confident mistakes.

    `on` names the model and the data; `of` says what the images are, in the plural. Probabilities are (N, C).
    """
    predicted, counts = probabilities.argmax(1), np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (labels, predicted), 1)
    counted = f"{on}: {len(labels):,} {of}, accuracy {np.mean(predicted == labels):.4f}"
    legend = f"{on}, most confident mistakes: predicted, not true: probability"
    return {
        "confusion": confusion(counts, classes, counted),
        "mistakes": mistakes(images, labels, probabilities, classes, legend),
    }


@styled
def mistakes(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], title: str
) -> Figure:
    """Draw the up to 24 mistakes with the most probable wrong class; probabilities are (N, C)."""
    truth, predicted, confidence = np.asarray(labels), probabilities.argmax(axis=1), probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    worst = order[predicted[order] != truth[order]][:24].tolist()
    names = [shorten(name) for name in classes]
    texts = [f"{names[int(predicted[i])]}, not {names[int(truth[i])]}: {confidence[i]:.2f}" for i in worst]
    return image_grid(images[worst], texts, 6, title, empty="no mistakes")
