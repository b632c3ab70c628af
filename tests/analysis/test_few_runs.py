"""Comparisons where cells have one run, few, failed or equal ones."""

from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest
from scipy import stats
from test_compare import GOOD, IMAGES, cell, nothing, predictions

from digitlab.analysis.compare import compare
from digitlab.analysis.fairness import caveats
from digitlab.report import decision, tables


def test_single_runs_above_the_best_of_those_with_several_are_said():
    runs = cell("a", "adam", 0.95) + cell("b", "adam", 0.94) + cell("c", "adam", 0.9, 0.91)
    found = compare(runs, nothing)
    said = decision.conclusion(found)
    assert said.startswith("c/adam (★) is best of those with several runs at 0.9050 ± ")
    assert "; 2 others are higher, of one run each; " in said
    assert decision.legend(found)[0].startswith("★ best of those with several runs, ≈ ")
    said = decision.conclusion(compare(cell("a", "adam", 0.9) + cell("c", "adam", 0.9, 0.91), nothing))
    assert said.startswith("c/adam (★) is best at 0.9050 ± ")
    assert "higher" not in said


def test_failed_runs_have_seeds_and_no_interval():
    broken = [replace(run, loss=nan) for run in cell("cnn", "sgd", 0.1, 0.1, 0.1)]
    found = compare(GOOD + broken, nothing)
    assert not any("seed" in note for note in caveats(found))
    headings, rows = tables.csv_of_cells(found)
    assert [row[headings.index("interval")] for row in rows] == ["t over seeds", ""]
    assert "Wilson" not in decision.legend(found)[0]


def test_equal_accuracies_have_the_interval_of_their_rounding():
    (equal,) = compare(cell("cnn", "adam", 0.982, 0.982, 0.982), nothing).cells
    half = stats.t.ppf(0.975, 2) * (1 / IMAGES) / np.sqrt(12) / np.sqrt(3)  # of a uniform error of one image
    assert equal.interval == pytest.approx((0.982 - half, 0.982 + half))
    assert tables.accuracy(equal) == f"0.9820 ± {half:.4f}"
    unknown = [replace(run, test_images=0, metrics={"f1": 0.9}) for run in equal.runs]
    (table,) = tables.metrics(compare(unknown, nothing))
    assert table.rows[0][-1] == "0.9000 (all equal)"


def test_what_the_design_can_show_is_that_of_the_fewest_runs():
    runs = {3: (0.9800, 0.9806, 0.9812), 9: (0.9800, 0.9806, 0.9812) * 3}
    best = cell("a", "adam", *(each + 0.001 for each in runs[9]))
    second, third = (
        compare([*best, *cell("b", "adam", *runs[n]), *cell("c", "adam", *(x - 0.001 for x in runs[m]))], nothing)
        for n, m in ((3, 9), (9, 3))
    )
    assert third.smallest == pytest.approx(second.smallest, rel=0.05)
    all_nine = compare([*best, *cell("b", "adam", *runs[9]), *cell("c", "adam", *runs[9])], nothing)
    assert third.smallest > 1.2 * all_nine.smallest


def test_single_runs_without_predictions_are_untested_and_the_caveats_say_so():
    found = compare(cell("cnn", "adam", 0.99) + cell("mlp", "adam", 0.5), nothing)
    assert [each.is_tied for each in found.cells] == [False, True]
    assert isnan(found.pairs[0].p)
    assert any(note.startswith("Not tested, and counted as indistinguishable: 1 of 1 pair.") for note in caveats(found))
    said = decision.conclusion(found)
    assert said == (
        "cnn/adam (★) is highest at 0.9900 (0.9879 to 0.9918) (n = 1) on these 10,000 test images; "
        "no difference to it was tested."
    )
    blocks = [block for block in [*decision.legend(found), *decision.differences(found)] if isinstance(block, str)]
    assert blocks
    assert not any("indistinguishable" in block or "McNemar" in block for block in blocks)
    other_images = compare(
        cell("cnn", "adam", 0.99) + cell("mlp", "adam", 0.5),
        lambda run: predictions(5) if run.model == "mlp" else replace(predictions(5), labels=np.ones(IMAGES, int)),
    )
    assert other_images.pairs[0].test == "none"
