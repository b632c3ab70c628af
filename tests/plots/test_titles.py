"""No title of a figure is cut: whatever is drawn of it lies inside the figure, beside the other texts."""

import io

import numpy as np
import pytest

from digitlab.plots import network_figures, report_figures, run_figures

ACCURACIES = 0.9 + np.random.default_rng(0).random((3, 6)) * 0.09
IMAGES = np.zeros((4, 28, 28), np.uint8)
NAME = "a_network_that_has_a_very_long_name_without_any_space"
PANELS = {f"{NAME}_{number}": {"adam": ACCURACIES} for number in range(3)}
RATES = {f"{NAME}_{number}": {"adam": ([0.1, 0.2], [[0.9], [0.95]], 1)} for number in range(2)}
CLASSES = ("a", "b", "c")
DRAW = {
    "curves": lambda title: report_figures.learning_curves(PANELS, title),
    "one panel": lambda title: report_figures.learning_curves(dict(list(PANELS.items())[:1]), title),
    "nine panels": lambda title: report_figures.learning_curves(
        {f"{NAME}_{number}": {"adam": ACCURACIES} for number in range(9)}, title
    ),
    "rates": lambda title: report_figures.rate_sensitivity(RATES, title),
    "matrix": lambda title: report_figures.accuracy_matrix(np.array([[0.9]]), [["0.9"]], ["mlp"], ["adam"], title),
    "costs": lambda title: report_figures.trade_offs({"s": ([1.0], [0])}, [(0.9, 0.8, 0.95)], ["mlp"], ["adam"], title),
    "ranks": lambda title: network_figures.critical_difference({"adam": 1.0, "sgd": 2.0, "adadelta": 3.0}, 0.5, title),
    "profiles": lambda title: network_figures.performance_profiles({"adam": [[0.9, 0.95]]}, title),
    "shared mistakes": lambda title: report_figures.shared_mistakes(
        IMAGES, np.zeros(4, int), np.ones((2, 4), int), CLASSES, title
    ),
    "samples": lambda title: run_figures.samples(IMAGES, [0, 1, 2, 0], CLASSES, title),
    "mistakes": lambda title: run_figures.mistakes(IMAGES, [0] * 4, np.eye(3)[[1, 1, 2, 2]], CLASSES, title),
    "curves of a run": lambda title: run_figures.curves({"val/acc": ([0, 1], [0.1, 0.9])}, title),
    "confusion": lambda title: run_figures.confusion(np.eye(3, dtype=int), CLASSES, title),
}
TITLES = {
    "short": "Validation accuracy",
    "usual": "Validation accuracy on mnist5k, seeds 0 to 2: mean, and band from the lowest seed to the highest",
    "long": "Test accuracy on a data set of a long name, " * 5,
    "one word": "x" * 150,
    "wide": "W" * 60,
}


@pytest.mark.table
@pytest.mark.parametrize("title", TITLES.values(), ids=TITLES)
@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
def test_no_title_is_cut(draw, title):
    fig = draw(title)
    fig.savefig(io.BytesIO(), format="png")
    drawn = fig.texts[:1] if fig.get_suptitle() else []
    titles = [*drawn, *(ax.title for ax in fig.axes if ax.get_title())]
    boxes = [text.get_window_extent() for text in titles]
    assert boxes
    page = fig.bbox
    for box, text in zip(boxes, titles, strict=True):
        assert page.x0 <= box.x0, text.get_text()
        assert box.x1 <= page.x1, text.get_text()
        assert page.y0 <= box.y0, text.get_text()
        assert box.y1 <= page.y1 + 0.5, text.get_text()
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert "".join(titles[0].get_text().split()) == "".join(title.split()) or not fig.get_suptitle()
