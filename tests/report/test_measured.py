"""Other metrics than accuracy in `digitlab report` and `digitlab compare`, on made-up runs with known results."""

import re

import numpy as np
import pytest
from scipy import stats

F1 = {"mlp": [0.91, 0.93, 0.92], "cnn": [0.95, 0.97, 0.97]}


@pytest.fixture
def measured(fake_store):
    """Two cells of three seeds, all but one run with a metric."""
    for model, values in F1.items():
        for seed, value in enumerate(values):
            run_id = fake_store.record(model, "adam", seed, value + 0.01, predictions=False)
            if (model, seed) != ("cnn", 2):
                fake_store.harness.client.log_metric(run_id, "test/f1_macro", value)
    return fake_store


def test_a_report_has_them_with_their_interval_over_seeds(measured, capsys):
    measured.report("report.filter=params.optim = 'adam'")
    low, high = stats.t.interval(0.95, 2, np.mean(F1["mlp"]), stats.sem(F1["mlp"]))
    row = measured.cells()["mlp/adam"]
    assert [float(row[f"test_f1_macro{end}"]) for end in ("", "_low", "_high")] == pytest.approx([0.92, low, high])
    markdown = (measured.folder / "report.md").read_text()
    assert f"| mlp | adam | 0.9200 ± {(high - low) / 2:.4f} |" in markdown
    assert re.search(r"\| cnn \| adam \| 0\.9600 ± 0\.\d+ \(2 of 3\) \|", markdown)
    assert "Other metrics of the test" in capsys.readouterr().out


def test_compare_has_their_difference(measured, capsys):
    measured.harness.main("compare", "mlp-adam-s0", "cnn-adam-s0", entry_point="digitlab")
    said = capsys.readouterr().out
    expected = stats.ttest_ind(F1["cnn"][:2], F1["mlp"], equal_var=False)
    low, high = expected.confidence_interval()
    assert f"+0.0400 ± {(high - low) / 2:.4f}" in said
    assert f"p = {expected.pvalue:.2g}" in said


def test_runs_without_any_have_no_table(fake_store, capsys):
    for seed in range(3):
        fake_store.record("mlp", "adam", seed, 0.9)
    fake_store.report("report.filter=params.optim = 'adam'")
    assert "ther metrics" not in capsys.readouterr().out + (fake_store.folder / "report.md").read_text()
    assert not [key for key in fake_store.cells()["mlp/adam"] if key.startswith("test_f")]
