"""Claims that get more seeds where a verdict is open: which do, and what is refused.

Training is replaced by runs with known accuracies.
"""

import json
from collections import Counter

import mlflow
import pytest

CLAIMS = ("-m", "claim=simple_004,mlp_000,tf_quickstart", "data=mnist5k", "++claim.data=mnist5k",
          "sweep.name=some", "sweep.seeds=auto", "sweep.max_seeds=20")  # fmt: skip


@pytest.fixture
def told(made):
    """Have one claim that holds, one that does not, and one whose runs differ by more than five of them can tell."""
    made.means = {"simple_004": 0.9914, "mlp_000": 0.95, "tf_quickstart": 0.98}
    made.spreads, made.said = {"tf_quickstart": 0.0035}, {"data": "mnist"}
    return made


def counts(harness) -> Counter:
    return Counter(run.data.tags["claim"] for run in harness.runs() if "claim" in run.data.tags)


def looks(harness) -> dict:
    return json.loads(mlflow.artifacts.load_text(f"{harness.parent().info.artifact_uri}/claims.json"))


@pytest.mark.slow
def test_only_open_verdicts_get_more_seeds(harness, told, capsys):
    assert harness.main(*CLAIMS) is None
    found = looks(harness)
    assert found["looks"]["5"] == {"simple_004": "REPRODUCED", "mlp_000": "WORSE", "tf_quickstart": "CANNOT TELL"}
    assert found["settled"]["simple_004"] == "REPRODUCED after 5 seeds"
    assert counts(harness) == {"simple_004": 5, "mlp_000": 5, "tf_quickstart": 10}
    assert found["end"] == "no claim is left that more seeds would settle"
    assert "3 claims, judged after 5, 10, 20 seeds; at most 60 runs" in capsys.readouterr().out
    told.count = 0
    assert harness.main(*CLAIMS) is None  # the same looks, and nothing to run
    assert (told.count, looks(harness)) == (0, found)
    folder = harness.folder / "report"
    assert harness.main("report.sweep=some", f"report.dir={folder}", entry_point="report") is None
    assert (
        "Seeds were bought where a verdict was open, by sweep.seeds=auto, after 5" in (folder / "report.md").read_text()
    )


@pytest.mark.slow
def test_an_interrupted_sweep_comes_to_the_same_looks(harness, told, tmp_path):
    told.interrupt_at = 18  # in the second round
    assert harness.main(*CLAIMS) == 130
    assert list(looks(harness)["looks"]) == ["5"]
    assert harness.main(*CLAIMS) is None
    broken = looks(harness)
    told.interrupt_at = 0
    other = type(harness)(tmp_path / "other")
    assert other.main(*CLAIMS) is None
    assert looks(other) == broken


@pytest.mark.slow
def test_a_spent_budget_ends_it_and_a_claim_whose_run_fails_is_left_out(harness, told):
    assert harness.main(*CLAIMS, "sweep.budget=0.001s") is None
    assert (told.count, looks(harness)["end"]) == (0, "sweep.budget=0.001s is spent")
    told.failing = {("tf_quickstart", 1)}
    assert harness.main(*CLAIMS).startswith("error: 1 of ")
    assert looks(harness)["settled"]["tf_quickstart"].endswith("out of it")


@pytest.mark.table
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["model=cnn_pool"], "sweep.seeds=auto: simple_004 with another recipe has no verdict to settle"),
        (["counterpart=simple_004_torch"], "sweep.seeds=auto: simple_004 with another recipe has no verdict to settle"),
        (["rerun=true"], "rerun=true: sweep.seeds=auto counts on what is done; give one of them"),
        (["sweep.max_seeds=4"], "sweep.max_seeds=4: a verdict on a claim needs 5 runs at least"),
        (["seed=1"], "sweep.seeds=auto and seed=1: both say which seeds to run; give one"),
    ],
)
def test_what_cannot_be_settled_gets_one_line_and_leaves_nothing(harness, told, arguments, complaint):
    end = harness.main(*(each for each in CLAIMS if "claim=" not in each or arguments[0][0] != "c"), *arguments)
    assert str(end).startswith(f"error: {complaint}")
    assert "\n" not in end
    assert not harness.folder.exists()
