"""Races through the command line: which cells get more seeds, continued, limited, refused, and said in the report.

Training is replaced by runs with known accuracies; the last test trains.
"""

import json
from collections import Counter

import mlflow
import numpy as np
import pytest
from made import MEANS
from scipy import stats

from digitlab.tracking import queries

RACE = ("-m", "model=mlp", "optim=adam,sgd,adadelta", "data=mnist5k", "data.test_fraction=0.8", "trainer=smoke",
        "sweep.name=race", "sweep.seeds=auto", "sweep.max_seeds=10")  # fmt: skip


def counts(harness) -> Counter:
    return Counter(run.data.tags["optim"] for run in harness.cells())


def race_json(harness) -> dict:
    parent = harness.parent("race")
    return json.loads(mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/race.json"))


def short(names) -> set[str]:
    return {name.split("-")[1] for name in names}


@pytest.mark.slow
def test_only_cells_that_may_be_the_best_get_more_seeds(harness, made, capsys):
    assert harness.main(*RACE) is None
    assert counts(harness) == {"adam": 10, "adadelta": 10, "sgd": 3}
    found = race_json(harness)
    assert list(found["looks"]) == ["3", "5", "10"]
    assert (short(found["left"]), short(found["out"])) == ({"adam", "adadelta"}, {"sgd"})
    assert found["end"] == "sweep.max_seeds=10 is reached"
    values = {optim: [made.accuracy(optim, seed) for seed in range(5)] for optim in ("adam", "adadelta")}
    best = max(values, key=lambda optim: np.mean(values[optim]))
    (other,) = values.keys() - {best}
    p = min(1, 2 * stats.ttest_ind(values[best], values[other], equal_var=False, alternative="greater").pvalue)
    at_5 = {each["name"].split("-")[1]: each for each in found["looks"]["5"]}
    assert (at_5[best]["p"], at_5[other]["p"]) == (None, pytest.approx(p, rel=1e-6))
    parent = harness.parent()
    assert (parent.data.tags["race.looks"], parent.data.tags["done"]) == ("3, 5, 10", "true")
    said = capsys.readouterr().out
    assert "sweep race: 9 cells: 0 done, 0 to resume, 9 to run" in said
    assert "race: 3 cells, compared after 3, 5, 10 seeds; at most 30 runs, unknown time in all" in said
    assert "23 of 23 cells are done" in said

    made.count = 0
    assert harness.main(*RACE) is None  # the same looks, and nothing to run
    assert (made.count, race_json(harness)) == (0, found)

    folder = harness.folder / "report"
    assert harness.main("report.sweep=race", f"report.dir={folder}", entry_point="report") is None
    said = (folder / "report.md").read_text()
    assert "after 3, 5 and 10 seeds a cell left the race at p < 0.01667, an error of 5 % shared among 3 looks" in said
    assert "sweep.max_seeds=10 is reached" in said
    assert "Looked at before" not in said


@pytest.mark.slow
def test_an_interrupted_race_comes_to_the_same_looks(harness, made, tmp_path):
    made.interrupt_at = 12  # in the second round
    assert harness.main(*RACE) == 130
    assert list(race_json(harness)["looks"]) == ["3"]
    assert harness.main(*RACE) is None
    names = Counter(run.info.run_name for run in harness.cells())
    assert set(names.values()) == {1}
    broken = race_json(harness)
    made.interrupt_at = 0
    other = type(harness)(tmp_path / "other")
    assert other.main(*RACE) is None
    assert race_json(other) == broken


@pytest.mark.slow
def test_seeds_that_were_run_before_are_not_looked_at_early(harness, made):
    assert harness.main(*RACE[:6], "sweep.name=fixed", "sweep.seeds=6") is None
    made.count = 0
    assert harness.main(*RACE) is None
    assert made.count == 2 * 4  # sgd has left after three seeds, whatever was run of it before
    assert {each["n"] for each in race_json(harness)["looks"]["3"]} == {3}


@pytest.mark.slow
def test_a_diverged_cell_leaves_with_a_reason(harness, made):
    made.losses["adadelta", 1] = float("inf")
    made.means = MEANS | {"sgd": 0.9498}
    assert harness.main(*RACE) is None
    assert counts(harness) == {"adam": 10, "sgd": 10, "adadelta": 3}
    (reason,) = race_json(harness)["out"].values()
    assert reason.startswith("mlp-adadelta-s1-")
    assert reason.endswith(" diverged")


@pytest.mark.slow
def test_a_cell_at_chance_leaves_too(harness, made):
    made.means = MEANS | {"adadelta": 0.1}
    assert harness.main(*RACE, "sweep.max_seeds=3") is None
    reasons = {name.split("-")[1]: why for name, why in race_json(harness)["out"].items()}
    assert reasons["adadelta"].endswith("is no better than naming one class")
    assert reasons["sgd"].startswith("worse than the best after 3 seeds: p = ")


@pytest.mark.slow
def test_a_cell_that_fails_leaves_and_is_tried_again(harness, made):
    made.failing = {("adam", 1)}
    assert harness.main(*RACE).startswith("error: 1 of ")
    assert "out of it" in race_json(harness)["out"][next(iter(race_json(harness)["out"]))]
    made.failing = ()
    assert harness.main(*RACE) is None
    assert counts(harness) == {"adam": 10, "adadelta": 10, "sgd": 3}


@pytest.mark.slow
def test_equivalent_cells_end_the_race(harness, made):
    made.spread = 0.0003
    assert harness.main(*RACE, "report.margin=0.005") is None
    assert counts(harness) == {"adam": 3, "adadelta": 3, "sgd": 3}
    assert race_json(harness)["end"] == "all cells left are equivalent within 0.005"


@pytest.mark.slow
def test_a_spent_budget_ends_the_race_and_the_same_command_without_goes_on(harness, made, capsys):
    assert harness.main(*RACE, "sweep.budget=0.001s") is None
    assert made.count == 0
    assert "race: over, sweep.budget=0.001s is spent; left: " in capsys.readouterr().out
    assert race_json(harness)["looks"] == {}
    assert harness.main(*RACE, "sweep.budget=1h") is None
    assert counts(harness) == {"adam": 10, "adadelta": 10, "sgd": 3}


def test_a_budget_leaves_no_run_half_made(harness, made, monkeypatch):
    monkeypatch.setattr(queries, "pace", lambda *_: (0.0, 1e9))  # from the second run on each would take too long
    assert harness.main(*RACE, "sweep.budget=1h") is None
    assert made.count == 0
    assert race_json(harness)["end"] == "sweep.budget=1h is spent"


@pytest.mark.slow
def test_a_report_says_that_the_sweep_was_looked_at_before(harness, made):
    folder, sweep = harness.folder / "report", (*RACE[:6], "sweep.name=fixed")
    said = []
    for seeds in (2, 2, 3):
        assert harness.main(*sweep, f"sweep.seeds={seeds}") is None
        assert harness.main("report.sweep=fixed", f"report.dir={folder}", entry_point="report") is None
        said.append((folder / "report.md").read_text())
    assert ["Looked at before" in each for each in said] == [False, False, True]
    assert "Looked at before, in reports on 6 runs." in said[2]


@pytest.mark.table
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["seed=0,1"], "sweep.seeds=auto and seed=0,1: both say which seeds to run; give one"),
        (["optim=sgd"], "sweep.seeds=auto: compares cells, and this is one; give several, or a number of seeds"),
        (["optim.lr=0.1,0.2"], "optim.lr=0.2: sweep.seeds=auto decides by test accuracy, and learning rates are "),
        (["data.test_fraction=0.7,0.8"], "sweep.seeds=auto: compares cells on the same test images, and "),
        (
            ["optim=sgd", "metrics=[],[f1_macro]"],
            "sweep.seeds=auto: mlp-sgd-mnist5k-data.test_fraction=0.8-smoke: several cells have this name, for they ",
        ),
        (["rerun=true"], "rerun=true: sweep.seeds=auto counts on what is done; give one of them"),
        (["sweep.max_seeds=2"], "sweep.max_seeds=2: must be null or a whole number from 3 to 1000"),
        (["sweep.budget=30"], "sweep.budget=30: must be null or a time above 0 such as 90s, 30min or 1.5h"),
        (["sweep.budget=0min"], "sweep.budget=0min: must be null or a time above 0 such as 90s, 30min or 1.5h"),
        (["sweep.budget=-5min"], "sweep.budget=-5min: must be null or a time above 0 such as 90s, 30min or 1.5h"),
        (["sweep.budget=soon"], "sweep.budget=soon: must be null or a time above 0 such as 90s, 30min or 1.5h"),
        (["report.margin=1"], "report.margin=1: must be null or a number above 0 and below 1"),
        (["report.margin=2%"], "report.margin=2%: must be null or a number above 0 and below 1"),
        (["sweep.seeds=automatic"], "sweep.seeds=automatic: must be a whole number from 1 to 2147483647 or auto"),
        (["sweep.seeds=3"], "sweep.max_seeds=10: limits how many seeds are run; give it with sweep.seeds=auto"),
    ],
)
def test_what_cannot_be_raced_gets_one_line_and_leaves_nothing(harness, made, arguments, complaint):
    end = harness.main(*RACE, *arguments)
    assert str(end).startswith(f"error: {complaint}")
    assert "\n" not in end
    assert not harness.folder.exists()


@pytest.mark.parametrize("told", ["sweep.seeds=auto", "sweep.seeds=3", "sweep.budget=5min", "sweep.dry_run=true",
                                  "sweep.max_seeds=5", "sweep.name=x", "report.margin=0.01"])  # fmt: skip
def test_a_single_run_is_not_told_how_to_sweep(harness, told):
    end = harness.main("model=mlp", "data=mnist5k", told)
    assert end == f"error: {told}: is for a sweep, and this is one run; sweep=NAME or -m makes many"
    assert not harness.folder.exists()


def test_a_race_decides_how_many_seeds_there_are(harness):
    end = harness.main(*RACE[:6], "sweep.seeds=auto", "sweep.fresh_seeds=2", "sweep.dry_run=true")
    assert end == "error: sweep.fresh_seeds=2: sweep.seeds=auto decides how many; give one of them"


def test_seeds_repeat_the_cells_of_a_command_too(harness, capsys):
    assert harness.main(*RACE[:6], "sweep.seeds=4", "sweep.dry_run=true") is None
    assert "12 cells: 0 done" in capsys.readouterr().out


@pytest.mark.slow
def test_a_race_runs_several_at_once(harness):
    several = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert harness.cli(*RACE, "optim=adam,adadelta", *several, "sweep.max_seeds=4").returncode == 0
    found = counts(harness)
    assert set(found.values()) <= {3, 4}
    assert race_json(harness)["end"]
