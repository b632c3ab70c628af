"""Figures of runs: texts, counts, line data; and that they can be drawn for any input."""

import os
import subprocess
import sys

import numpy as np
import pytest
from figures import DIGITS, contrast, lines, png, texts_over_images
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from sklearn.metrics import confusion_matrix

from digitlab.plots import run_figures

LONG = [f"a very long class name: {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]


def images_under_texts(fig):
    """Return the tile that is drawn under the middle of each text; everything else must be white."""
    (ax,) = fig.axes
    rest = np.asarray(ax.images[0].get_array()).copy()
    shown = []
    for text in ax.texts:
        middle, baseline = text.get_position()
        tile = rest[int(baseline + 1.5) :, int(middle - 13.5) :][:28, :28]
        shown.append(tile.copy())
        tile[:] = 255
    assert (rest == 255).all()
    return shown


def cell_counts(fig, size):
    counts = np.full((size, size), -1)
    for text in fig.axes[0].texts:
        column, row = text.get_position()
        counts[row, column] = int(text.get_text())
    return counts


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8)


def test_samples_shows_the_first_forty_with_their_names(images):
    labels = np.arange(50) % 10
    fig = run_figures.samples(images, labels, DIGITS, "data")
    assert fig.get_suptitle() == "data"
    assert texts_over_images(fig) == [str(label) for label in labels[:40]]
    np.testing.assert_array_equal(images_under_texts(fig), images[:40])
    png(fig)


@pytest.mark.parametrize("layout", ["figure.autolayout", "figure.constrained_layout.use"])
def test_a_users_matplotlibrc_changes_no_figure(layout):
    counts = np.eye(3, dtype=int)
    ours = png(run_figures.confusion(counts, ["a", "b", "c"], "counts"))
    with rc_context({layout: True}):
        assert png(run_figures.confusion(counts, ["a", "b", "c"], "counts")) == ours


@pytest.mark.parametrize("count", [0, 1, 7, 11])
def test_samples_of_few_images(images, count):
    fig = run_figures.samples(images[:count], [3] * count, DIGITS, "few")
    assert texts_over_images(fig) == ["3"] * count
    np.testing.assert_array_equal(images_under_texts(fig), list(images[:count]))
    png(fig)


def test_a_faint_image_stays_faint(images):
    fig = run_figures.samples(images[:1] // 10 + 100, [0], DIGITS, "faint")
    assert fig.axes[0].images[0].get_clim() == (0, 255)


def test_curves_show_the_history():
    epochs = [1, 2, 3]
    history = {
        "train/loss": (epochs, [0.9, 0.5, 0.3]),
        "val/loss": (epochs, [0.8, 0.6, 0.5]),
        "train/acc": (np.array(epochs), np.array([0.7, 0.8, 0.9])),
        "val/acc": (epochs, [0.72, 0.79, 0.85]),
        "test/loss": ([2], [0.62]),
        "test/acc": ([2], [0.78]),
    }
    fig = run_figures.curves(history, "run")
    for ax, metric in zip(fig.axes, ["loss", "acc"], strict=True):
        drawn = lines(ax)
        assert list(drawn) == ["train", "val", "test"]
        for series, line in drawn.items():
            np.testing.assert_array_equal(line.get_data(), history[f"{series}/{metric}"])
        assert drawn["test"].get_marker() == "*"
        assert drawn["train"].get_linestyle() != drawn["val"].get_linestyle()
        assert drawn["train"].get_marker() != drawn["val"].get_marker()
    png(fig)
    assert all(tick == int(tick) for ax in fig.axes for tick in ax.get_xticks())


def test_curves_leave_out_missing_metrics():
    fig = run_figures.curves({"val/loss": ([1, 2], [0.5, 0.4]), "train/acc": ([], [])}, "part")
    loss, accuracy = fig.axes
    assert list(lines(loss)) == ["val"]
    assert not accuracy.lines
    png(fig)
    png(run_figures.curves({}, "nothing yet"))


@pytest.mark.parametrize("epochs", [1, 300])
def test_the_first_epoch_has_a_marker(epochs):
    steps = np.arange(1, epochs + 1)
    fig = run_figures.curves({"train/loss": (steps, 1 / steps)}, "visible")
    (line,) = fig.axes[0].lines
    assert line.get_marker() not in ("", "None", None)
    assert line.get_markersize() > 2
    png(fig)
    if epochs == 1:
        left, right = fig.axes[0].get_xlim()
        assert left < 1 < right
        assert [tick for tick in fig.axes[0].get_xticks() if left <= tick <= right] == [1]


def test_values_that_are_not_finite_leave_a_gap_and_are_counted():
    history = {
        "train/loss": ([1, 2, 3, 4], [2.3, np.inf, np.nan, 1e37]),
        "val/loss": ([1], [np.nan]),
        "val/acc": ([1, 2], [-np.inf, 0.1]),
    }
    fig = run_figures.curves(history, "diverged")
    loss, accuracy = fig.axes
    assert list(lines(loss)) == ["train (2 not finite)", "val (1 not finite)"]
    assert list(lines(accuracy)) == ["val (1 not finite)"]
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [2.3, np.nan, np.nan, 1e37])
    png(fig)


def test_confusion_counts_match_sklearn():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 10, 500)
    predicted = np.where(rng.random(500) < 0.8, labels, rng.integers(0, 10, 500))
    matrix = confusion_matrix(labels, predicted, labels=range(10))
    fig = run_figures.confusion(matrix, DIGITS, "test set")
    ax, bar = fig.axes
    np.testing.assert_array_equal(cell_counts(fig, 10), matrix)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    assert "log" in bar.get_ylabel()
    png(fig)


def test_one_mistake_in_a_thousand_is_visible_and_every_count_legible():
    matrix = np.array([[999, 1, 0], [0, 950, 50], [0, 0, 0]])
    fig = run_figures.confusion(matrix, DIGITS[:3], "rare")
    ax = fig.axes[0]
    image = ax.images[0]
    colors = image.to_rgba(image.get_array())[..., :3]
    white = np.ones(3)
    assert np.abs(colors[0, 1] - white).max() > 0.1
    np.testing.assert_array_equal(colors[2], [white] * 3)  # a class without images divides by nothing
    for text in ax.texts:
        column, row = text.get_position()
        assert contrast(colors[row, column], to_rgb(text.get_color())) > 4.5
    png(fig)


def test_counts_have_contrast_on_every_shade():
    mistakes = np.unique(np.geomspace(1, 5000, 20).astype(int))
    size = len(mistakes)
    matrix = np.zeros((size, size), dtype=int)
    matrix[:, 0], matrix[:, 1] = mistakes, 5001 - mistakes
    ax = run_figures.confusion(matrix, LONG[:size], "shades").axes[0]
    colors = ax.images[0].to_rgba(ax.images[0].get_array())[..., :3]
    for text in ax.texts:
        column, row = text.get_position()
        assert contrast(colors[row, column], to_rgb(text.get_color())) > 4, text.get_text()


def test_many_classes_with_long_names_have_no_counts():
    fig = run_figures.confusion(np.eye(26, dtype=int) * 30 + 1, LONG, "letters")
    ax = fig.axes[0]
    assert not ax.texts
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert len(set(names)) == 26
    assert max(map(len, names)) < max(map(len, LONG))
    png(fig)


def test_the_most_confident_mistakes_come_first(images):
    labels = np.array([9, 1, 2, 3, 0])
    probabilities = np.full((5, 10), 0.001)
    for row, (predicted, probability) in enumerate([(4, 0.61), (1, 0.99), (7, 0.98), (8, 0.75), (0, 0.5)]):
        probabilities[row, predicted] = probability
    fig = run_figures.mistakes(images[:5], labels, probabilities, DIGITS, "mistakes")
    assert texts_over_images(fig) == ["7, not 2: 0.98", "8, not 3: 0.75", "4, not 9: 0.61"]
    np.testing.assert_array_equal(images_under_texts(fig), images[[2, 3, 0]])
    png(fig)


def test_at_most_24_mistakes_with_long_names_do_not_overlap(images):
    probabilities = np.random.default_rng(2).dirichlet(np.ones(26), 50)
    labels = (probabilities.argmax(axis=1) + 1) % 26
    fig = run_figures.mistakes(images, labels, probabilities, LONG, "many")
    assert len(texts_over_images(fig)) == 24
    png(fig)
    boxes = [text.get_window_extent() for text in [*fig.texts, *fig.axes[0].texts]]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    (ax,) = fig.axes
    mosaic = ax.images[0].get_array()
    for box in boxes:
        (left, bottom), (right, top) = ax.transData.inverted().transform(box).round().astype(int)
        covered = mosaic[top:bottom, left:right]
        assert covered.size
        assert (covered == 255).all()


def test_no_mistakes_says_so(images):
    fig = run_figures.mistakes(images[:3], [0, 1, 2], np.eye(10)[:3], DIGITS, "perfect")
    assert texts_over_images(fig) == []
    assert [text.get_text() for text in fig.texts] == ["perfect", "no mistakes"]
    png(fig)


def test_probabilities_of_a_diverged_network_are_drawn(images):
    fig = run_figures.mistakes(images[:2], [1, 2], np.full((2, 10), np.nan), DIGITS, "diverged")
    assert texts_over_images(fig) == ["0, not 1: nan", "0, not 2: nan"]
    png(fig)


def test_a_dollar_sign_is_not_parsed_as_a_formula(images):
    png(run_figures.samples(images[:1], [0], [r"$\broken"], r"costs $\1 or $2"))


def test_pyplot_is_not_imported_and_the_global_style_is_not_changed():
    code = """
import io, sys
import matplotlib, numpy as np
before = dict(matplotlib.rcParams.copy())
from digitlab.plots import run_figures
images, names = np.zeros((2, 28, 28), np.uint8), ["0", "1"]
for fig in [
    run_figures.samples(images, [0, 1], names, "s"),
    run_figures.curves({"train/loss": ([1], [1.0])}, "c"),
    run_figures.confusion(np.eye(2, dtype=int), names, "m"),
    run_figures.mistakes(images, [1, 1], np.eye(2), names, "w"),
]:
    fig.savefig(io.BytesIO(), format="png")
assert "matplotlib.pyplot" not in sys.modules
assert "torch" not in sys.modules
assert dict(matplotlib.rcParams.copy()) == before
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)


def test_the_untrained_network_does_not_flatten_the_curves():
    fig = run_figures.curves(
        {"val/loss": ([0, 1, 2], [2.3, 0.08, 0.04]), "val/acc": ([0, 1, 2], [0.1, 0.97, 0.99])}, "t"
    )
    for ax, trained in zip(fig.axes, [(0.04, 0.08), (0.97, 0.99)], strict=True):
        low, high = ax.get_ylim()
        assert low < trained[0] < trained[1] < high
        assert high - low < 2 * (trained[1] - trained[0])


def test_images_of_another_size_are_scaled(images):
    fig = run_figures.samples(images[:3, :16, :20], [0, 1, 2], DIGITS, "small")
    assert texts_over_images(fig) == ["0", "1", "2"]
