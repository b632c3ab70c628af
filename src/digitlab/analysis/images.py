"""Widen the comparison with the best to new images: the test images are a sample too."""

from collections.abc import Sequence

import numpy as np

from digitlab.analysis import moderated
from digitlab.analysis.cells import ALPHA, Cell
from digitlab.analysis.moderated import Spread
from digitlab.analysis.records import Predict
from digitlab.analysis.statistics import t_tail


def p_on_new_images(cells: Sequence[Cell], spread: Spread, p_values: np.ndarray, predict: Predict) -> np.ndarray:
    """Return the p-value of each cell being at least as good as the best on other images of the same kind.

    `p_values` are those on these images, nan for the best, and nan it stays. Predictions are read only where they can
    change the decision: where a cell is worse on these images, and not by so much that no images could change it.
    There, nan means that they are not stored.
    """
    counts, found = np.array([cell.n for cell in cells], dtype=float), p_values.copy()
    if len(cells) < 2:
        return found
    best = int(np.flatnonzero(np.isnan(p_values))[0])
    errors, dfs = moderated.welch(spread, counts, np.array(best))

    def p_value(index: int, images: float) -> float:
        total = errors[index] ** 2 + images
        df = dfs[index] * (total / errors[index] ** 2) ** 2  # that of the images has as many degrees as there are
        t = (cells[best].accuracy - cells[index].accuracy) / total**0.5
        return min(1.0, (len(cells) - 1) * t_tail(t, df))

    for index in map(int, np.flatnonzero(p_values < ALPHA)):
        # An image on which two networks differ is misclassified by one of them.
        if not cells[best].runs[0].test_images:
            found[index] = float("nan")
            continue
        errors_of_both = 2 - cells[best].accuracy - cells[index].accuracy
        found[index] = p_value(index, errors_of_both / cells[best].runs[0].test_images)
        if found[index] >= ALPHA:
            images = image_variance(cells[best], cells[index], predict)
            found[index] = float("nan") if np.isnan(images) else p_value(index, images)
    return found


def image_variance(one: Cell, other: Cell, predict: Predict) -> float:
    """Return the variance, over samples of images, of the difference in accuracy of two cells; nan where unknown.

    It is what images add to the variance over seeds, which already holds the chance of each seed on each image.
    """
    right = []
    for cell in (one, other):
        stored = [predict(run) for run in cell.runs]
        if not all(stored):
            return float("nan")
        right.append(np.array([each.correct for each in stored if each], float))
    images = right[0].shape[1]
    between = np.var(right[0].mean(axis=0) - right[1].mean(axis=0), ddof=1) / images
    within = sum(np.var(each, axis=0, ddof=1).mean() / len(each) for each in right if len(each) > 1) / images
    return float(max(between - within, 0))
