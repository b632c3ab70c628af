"""What the figures show: texts, counts, line data; and that they can always be drawn."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from sklearn.metrics import confusion_matrix

from digitlab import plots

DIGITS = [str(digit) for digit in range(10)]
LONG = [f"a very long class name: {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]


def png(fig):
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png")
    assert buffer.getvalue().startswith(b"\x89PNG")
    return buffer.getvalue()


def texts_over_images(fig):
    return [text.get_text() for text in fig.axes[0].texts]


def images_under_texts(fig):
    """Return what is drawn right under the middle of each text; white and nothing else may be left around it."""
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


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


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
    fig = plots.samples(images, labels, DIGITS, "data")
    assert fig.get_suptitle() == "data"
    assert texts_over_images(fig) == [str(label) for label in labels[:40]]
    np.testing.assert_array_equal(images_under_texts(fig), images[:40])
    png(fig)


@pytest.mark.parametrize("layout", ["figure.autolayout", "figure.constrained_layout.use"])
def test_a_users_matplotlibrc_changes_no_figure(layout):
    counts = np.eye(3, dtype=int)
    ours = png(plots.confusion(counts, ["a", "b", "c"], "counts"))
    with rc_context({layout: True}):
        assert png(plots.confusion(counts, ["a", "b", "c"], "counts")) == ours


@pytest.mark.parametrize("count", [0, 1, 7, 11])
def test_samples_of_few_images(images, count):
    fig = plots.samples(images[:count], [3] * count, DIGITS, "few")
    assert texts_over_images(fig) == ["3"] * count
    np.testing.assert_array_equal(images_under_texts(fig), list(images[:count]))
    png(fig)


def test_a_faint_image_stays_faint(images):
    fig = plots.samples(images[:1] // 10 + 100, [0], DIGITS, "faint")
    assert fig.axes[0].images[0].get_clim() == (0, 255)


def test_curves_draws_the_history_as_it_is():
    epochs = [1, 2, 3]
    history = {
        "train/loss": (epochs, [0.9, 0.5, 0.3]),
        "val/loss": (epochs, [0.8, 0.6, 0.5]),
        "train/acc": (np.array(epochs), np.array([0.7, 0.8, 0.9])),
        "val/acc": (epochs, [0.72, 0.79, 0.85]),
        "test/loss": ([2], [0.62]),
        "test/acc": ([2], [0.78]),
    }
    fig = plots.curves(history, "run")
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


def test_curves_leaves_out_what_is_missing():
    fig = plots.curves({"val/loss": ([1, 2], [0.5, 0.4]), "train/acc": ([], [])}, "part")
    loss, accuracy = fig.axes
    assert list(lines(loss)) == ["val"]
    assert not accuracy.lines
    png(fig)
    png(plots.curves({}, "nothing yet"))


@pytest.mark.parametrize("epochs", [1, 300])
def test_the_first_epoch_has_a_marker(epochs):
    steps = np.arange(1, epochs + 1)
    fig = plots.curves({"train/loss": (steps, 1 / steps)}, "visible")
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
    fig = plots.curves(history, "diverged")
    loss, accuracy = fig.axes
    assert list(lines(loss)) == ["train (2 not finite)", "val (1 not finite)"]
    assert list(lines(accuracy)) == ["val (1 not finite)"]
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [2.3, np.nan, np.nan, 1e37])
    png(fig)


def test_confusion_counts_are_those_of_sklearn():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 10, 500)
    predicted = np.where(rng.random(500) < 0.8, labels, rng.integers(0, 10, 500))
    matrix = confusion_matrix(labels, predicted, labels=range(10))
    fig = plots.confusion(matrix, DIGITS, "test set")
    ax, bar = fig.axes
    np.testing.assert_array_equal(cell_counts(fig, 10), matrix)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    assert "log" in bar.get_ylabel()
    png(fig)


def test_one_mistake_among_a_thousand_can_be_seen_and_every_count_read():
    matrix = np.array([[999, 1, 0], [0, 950, 50], [0, 0, 0]])
    fig = plots.confusion(matrix, DIGITS[:3], "rare")
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


def contrast(one, other):
    """Return the WCAG contrast of two sRGB colours; 4.5 is the limit for text."""

    def luminance(color):
        color = np.asarray(color)
        return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_counts_are_legible_on_every_shade():
    mistakes = np.unique(np.geomspace(1, 5000, 20).astype(int))
    size = len(mistakes)
    matrix = np.zeros((size, size), dtype=int)
    matrix[:, 0], matrix[:, 1] = mistakes, 5001 - mistakes
    ax = plots.confusion(matrix, LONG[:size], "shades").axes[0]
    colors = ax.images[0].to_rgba(ax.images[0].get_array())[..., :3]
    for text in ax.texts:
        column, row = text.get_position()
        assert contrast(colors[row, column], to_rgb(text.get_color())) > 4, text.get_text()


def test_many_classes_with_long_names_have_no_counts():
    fig = plots.confusion(np.eye(26, dtype=int) * 30 + 1, LONG, "letters")
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
    fig = plots.mistakes(images[:5], labels, probabilities, DIGITS, "mistakes")
    assert texts_over_images(fig) == ["7, not 2: 0.98", "8, not 3: 0.75", "4, not 9: 0.61"]
    np.testing.assert_array_equal(images_under_texts(fig), images[[2, 3, 0]])
    png(fig)


def test_at_most_24_mistakes_with_long_names_do_not_overlap(images):
    probabilities = np.random.default_rng(2).dirichlet(np.ones(26), 50)
    labels = (probabilities.argmax(axis=1) + 1) % 26
    fig = plots.mistakes(images, labels, probabilities, LONG, "many")
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
    fig = plots.mistakes(images[:3], [0, 1, 2], np.eye(10)[:3], DIGITS, "perfect")
    assert texts_over_images(fig) == []
    assert [text.get_text() for text in fig.texts] == ["perfect", "no mistakes"]
    png(fig)


def test_probabilities_of_a_diverged_network_are_drawn(images):
    fig = plots.mistakes(images[:2], [1, 2], np.full((2, 10), np.nan), DIGITS, "diverged")
    assert texts_over_images(fig) == ["0, not 1: nan", "0, not 2: nan"]
    png(fig)


def test_a_dollar_sign_is_no_formula(images):
    png(plots.samples(images[:1], [0], [r"$\broken"], r"costs $\1 or $2"))


def test_pyplot_is_never_imported_and_the_style_stays_inside():
    code = """
import io, sys
import matplotlib, numpy as np
before = dict(matplotlib.rcParams.copy())
from digitlab import plots
images, names = np.zeros((2, 28, 28), np.uint8), ["0", "1"]
for fig in [
    plots.samples(images, [0, 1], names, "s"),
    plots.curves({"train/loss": ([1], [1.0])}, "c"),
    plots.confusion(np.eye(2, dtype=int), names, "m"),
    plots.mistakes(images, [1, 1], np.eye(2), names, "w"),
]:
    fig.savefig(io.BytesIO(), format="png")
assert "matplotlib.pyplot" not in sys.modules
assert "torch" not in sys.modules
assert dict(matplotlib.rcParams.copy()) == before
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)


def test_the_untrained_network_does_not_flatten_the_curves():
    fig = plots.curves({"val/loss": ([0, 1, 2], [2.3, 0.08, 0.04]), "val/acc": ([0, 1, 2], [0.1, 0.97, 0.99])}, "t")
    for ax, trained in zip(fig.axes, [(0.04, 0.08), (0.97, 0.99)], strict=True):
        low, high = ax.get_ylim()
        assert low < trained[0] < trained[1] < high
        assert high - low < 2 * (trained[1] - trained[0])


def test_images_of_another_size_are_shown_too(images):
    fig = plots.samples(images[:3, :16, :20], [0, 1, 2], DIGITS, "small")
    assert texts_over_images(fig) == ["0", "1", "2"]


def ticks_lie_inside(ax):
    low, high = ax.get_ylim()
    ticks = ax.get_yticks()
    return len(ticks) >= 2 and all(low <= tick <= high for tick in ticks)


def no_overlap(boxes):
    return not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


@pytest.mark.parametrize(("networks", "seeds"), [(1, 1), (3, 3), (7, 1), (9, 5)])
def test_learning_curves_have_a_panel_for_each_network_with_mean_and_band(networks, seeds):
    draw = np.random.default_rng(0)
    panels = {
        f"cnn_{network}": {optim: 0.9 + draw.random((seeds, 12)) * 0.09 for optim in ("adam", "sgd", "adadelta")}
        for network in range(networks)
    }
    panels["cnn_0"]["adam"][0, 6:] = np.nan  # stopped early
    fig = plots.learning_curves(panels, "curves")
    assert [ax.get_title() for ax in fig.axes] == list(panels)
    for ax, lines_of in zip(fig.axes, panels.values(), strict=True):
        drawn = lines(ax)
        assert len({(line.get_marker(), line.get_linestyle()) for line in drawn.values()}) == 3
        for name, values in lines_of.items():
            known = values[:, ~np.isnan(values).all(axis=0)]
            np.testing.assert_allclose(drawn[name].get_ydata(), np.nanmean(known, axis=0))
        assert len(ax.collections) == 3
        assert ax.get_ylim() == fig.axes[0].get_ylim()
    png(fig)
    assert ticks_lie_inside(fig.axes[0])
    labels = [text.get_window_extent() for text in fig.legends[0].texts]
    assert no_overlap([*labels, *(ax.xaxis.label.get_window_extent() for ax in fig.axes)])


def test_points_of_learning_curves_are_every_marker_and_no_line():
    panels = {"claim": {"ours": np.linspace(0.9, 0.99, 40).reshape(2, 20), "printed": np.linspace(0.9, 0.98, 20)[None]}}
    fig = plots.learning_curves(panels, "curves", points=("printed",))
    (ax,) = fig.axes
    drawn = lines(ax)
    assert (drawn["printed"].get_linestyle(), drawn["printed"].get_markevery()) == ("None", None)
    np.testing.assert_allclose(drawn["printed"].get_ydata(), panels["claim"]["printed"][0])
    assert drawn["ours"].get_linestyle() == "-"
    assert len(ax.collections) == 1  # the band is ours
    png(fig)


def test_the_matrix_shows_what_there_is_on_every_shade():
    values = np.array([[0.9912, 0.98], [0.5, np.nan], [0.9911, 0.1135]])
    texts = [["★ 0.9912", "0.9800"], ["0.5000", "–"], ["≈ 0.9911", "0.1135"]]
    fig = plots.accuracy_matrix(values, texts, ["a", "b", "c"], ["adam", "sgd"], "matrix")
    (ax,) = fig.axes
    colors = ax.images[0].to_rgba(ax.images[0].get_array())[..., :3]
    shown = {text.get_position(): text for text in ax.texts}
    for (row, column), value in np.ndenumerate(values):
        text = shown[column, row]
        assert text.get_text() == texts[row][column]
        assert contrast(colors[row, column], to_rgb(text.get_color())) > 4
        if np.isnan(value):
            np.testing.assert_array_equal(colors[row, column], np.ones(3))
    gray = colors @ [0.2126, 0.7152, 0.0722]
    assert gray[0, 0] < gray[0, 1] < gray[1, 0] < gray[2, 1]  # in grayscale too, darker is better
    png(fig)
    png(plots.accuracy_matrix(np.array([[0.9]]), [["0.9"]], ["one"], ["only"], "one cell"))


def test_the_pareto_front_goes_through_its_points_and_every_network_is_named():
    accuracies = [(0.99, 0.985, 0.993), (0.98, 0.5, 1.4), (0.97, 0.969, 0.971), (0.1, 0.09, 0.11)]
    costs = {"parameters": ([1e5, 3e4, 1e6, np.nan], [1, 0]), "seconds": ([30.0, 24.0, 31.0, np.nan], [1, 0])}
    fig = plots.trade_offs(costs, accuracies, ["cnn", "mlp", "wide", "odd"], ["adam", "sgd", "adam", "adam"], "costs")
    for ax, (name, (values, _)) in zip(fig.axes, costs.items(), strict=True):
        assert ax.get_xlabel() == name
        np.testing.assert_array_equal(lines(ax)["Pareto front"].get_data(), [values[1::-1], [0.98, 0.99]])
        assert [text.get_text() for text in ax.texts] == ["1", "2", "3"]
        assert len(ax.get_xticks()) >= 2
    legend = [text.get_text() for text in fig.legends[0].texts]
    assert legend == ["adam", "sgd", "Pareto front", "1  cnn", "2  mlp", "3  wide", "4  odd"]
    png(fig)
    assert ticks_lie_inside(fig.axes[0])
    assert no_overlap([fig._suptitle.get_window_extent(), fig.legends[0].get_window_extent()])


@pytest.mark.parametrize("accuracy", [1.0, 0.0, 0.1135])
def test_accuracies_at_the_ends_are_inside_the_view(accuracy):
    fig = plots.learning_curves({"mlp": {"adam": np.full((2, 3), accuracy)}}, "ends")
    (ax,) = fig.axes
    png(fig)
    heights = ax.transAxes.inverted().transform(ax.lines[0].get_transform().transform(ax.lines[0].get_xydata()))[:, 1]
    assert ((heights >= -1e-6) & (heights <= 1 + 1e-6)).all()


def test_the_chosen_learning_rate_has_a_ring():
    panels = {"mlp": {"adam": ([0.0001, 0.001, 0.01], [[0.9, 0.92], [0.98, 0.981], [0.5, 0.6]], 1)}}
    fig = plots.rate_sensitivity(panels, "rates")
    (ax,) = fig.axes
    ring = ax.lines[-1]
    np.testing.assert_allclose(ring.get_data(), [[0.001], [0.9805]])
    assert ax.get_xscale() == "log"
    png(fig)


def test_what_several_networks_said_of_an_image_is_counted(images):
    predicted = np.array([[3, 9, 1], [3, 9, 2], [5, 9, 3]])
    fig = plots.shared_mistakes(images[:3], np.array([8, 4, 7]), predicted, DIGITS, "shared")
    assert texts_over_images(fig) == ["8, not 3 (2×), 5", "4, not 9 (3×)", "7, not 1, 2, 3"]
    png(fig)
