"""Figures of reports: lines, bands, texts; and that they can be drawn for any input."""

import numpy as np
import pytest
from figures import DIGITS, contrast, lines, png, texts_over_images
from matplotlib.colors import to_rgb

from digitlab.documents.document import picture
from digitlab.plots import report_figures


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8)


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
    fig = report_figures.learning_curves(panels, "curves")
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


def test_the_same_figure_has_the_same_bytes():
    curves = {"mlp": {"adam": np.linspace(0.9, 0.99, 12)[None]}}
    one, other = (picture("it.svg", report_figures.learning_curves(curves, "curves"), "it") for _ in range(2))
    assert b"clip-path" in one.content  # whose ids are hashes
    assert one.content == other.content


def test_points_of_learning_curves_have_every_marker_and_no_line():
    panels = {"claim": {"ours": np.linspace(0.9, 0.99, 40).reshape(2, 20), "printed": np.linspace(0.9, 0.98, 20)[None]}}
    fig = report_figures.learning_curves(panels, "curves", points=("printed",))
    (ax,) = fig.axes
    drawn = lines(ax)
    assert (drawn["printed"].get_linestyle(), drawn["printed"].get_markevery()) == ("None", None)
    np.testing.assert_allclose(drawn["printed"].get_ydata(), panels["claim"]["printed"][0])
    assert drawn["ours"].get_linestyle() == "-"
    assert len(ax.collections) == 1  # the band is ours
    png(fig)


def test_the_matrix_shows_every_entry_with_contrast_on_every_shade():
    values = np.array([[0.9912, 0.98], [0.5, np.nan], [0.9911, 0.1135]])
    texts = [["★ 0.9912", "0.9800"], ["0.5000", "–"], ["≈ 0.9911", "0.1135"]]
    fig = report_figures.accuracy_matrix(values, texts, ["a", "b", "c"], ["adam", "sgd"], "matrix")
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
    png(report_figures.accuracy_matrix(np.array([[0.9]]), [["0.9"]], ["one"], ["only"], "one cell"))


def test_the_pareto_front_goes_through_its_points_and_every_network_is_named():
    accuracies = [(0.99, 0.985, 0.993), (0.98, 0.5, 1.4), (0.97, 0.969, 0.971), (0.1, 0.09, 0.11)]
    costs = {"parameters": ([1e5, 3e4, 1e6, np.nan], [1, 0]), "seconds": ([30.0, 24.0, 31.0, np.nan], [1, 0])}
    fig = report_figures.trade_offs(
        costs, accuracies, ["cnn", "mlp", "wide", "odd"], ["adam", "sgd", "adam", "adam"], "costs"
    )
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
    fig = report_figures.learning_curves({"mlp": {"adam": np.full((2, 3), accuracy)}}, "ends")
    (ax,) = fig.axes
    png(fig)
    heights = ax.transAxes.inverted().transform(ax.lines[0].get_transform().transform(ax.lines[0].get_xydata()))[:, 1]
    assert ((heights >= -1e-6) & (heights <= 1 + 1e-6)).all()


def test_the_chosen_learning_rate_has_a_ring():
    panels = {"mlp": {"adam": ([0.0001, 0.001, 0.01], [[0.9, 0.92], [0.98, 0.981], [0.5, 0.6]], 1)}}
    fig = report_figures.rate_sensitivity(panels, "rates")
    (ax,) = fig.axes
    ring = ax.lines[-1]
    np.testing.assert_allclose(ring.get_data(), [[0.001], [0.9805]])
    assert ax.get_xscale() == "log"
    png(fig)


def test_wrong_predictions_of_several_networks_are_counted(images):
    predicted = np.array([[3, 9, 1], [3, 9, 2], [5, 9, 3]])
    fig = report_figures.shared_mistakes(images[:3], np.array([8, 4, 7]), predicted, DIGITS, "shared")
    assert texts_over_images(fig) == ["3 (2×), 5, not 8", "9 (3×), not 4", "1, 2, 3, not 7"]
    png(fig)
