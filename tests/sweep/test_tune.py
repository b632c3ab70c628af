"""Tuning: rates are chosen by validation, and the chosen one is tested with other seeds."""

from collections import defaultdict

import pytest
from test_sweep import sweep_json

from digitlab.sweep.plan import SweepCell, rows

SMALL = ("model=mlp", "data=mnist5k", "data.test_fraction=0.8", "trainer=smoke", "trainer.max_epochs=2")
TUNED = ("sweep=tune", *SMALL, "optim=sgd", "optim.lr=0.01,1", "sweep.seeds=2", "sweep.fresh_seeds=2")


def chosen_by_hand(harness, children, of_curve) -> str:
    losses = defaultdict(list)
    for child in children:
        points = harness.client.get_metric_history(child.info.run_id, "val/loss")
        losses[child.data.params["optim.lr"]].append(of_curve([point.value for point in points if point.step > 0]))
    return min(losses, key=lambda lr: sum(losses[lr]))


@pytest.mark.slow
def test_tuning_tests_the_chosen_rate_alone_with_seeds_of_its_own(harness, tmp_path, capsys):
    harness.main(*TUNED, "sweep.dry_run=true")
    said = " ".join(capsys.readouterr().out.split())
    assert "sweep tune: 4 cells: 0 done, 0 to resume, 4 to run" in said
    assert "none of them is tested; then the learning rate of 1 choice, with 2 other seeds each, is" in said
    assert harness.main(*TUNED) is None
    children, parent = harness.cells(), harness.parent()
    untested = [child for child in children if "test/acc" not in child.data.metrics]
    tested = [child for child in children if child not in untested]
    assert sorted(child.data.params["seed"] for child in untested) == ["0", "0", "1", "1"]
    for child in untested:
        assert not [key for key in child.data.metrics if key.startswith("test/")]
        files = {each.path for each in harness.client.list_artifacts(child.info.run_id)}
        assert "predictions.npz" not in files
        assert child.data.tags["done"] == "true"
    assert sorted(child.data.params["seed"] for child in tested) == ["2", "3"]
    assert {child.data.params["optim.lr"] for child in tested} == {chosen_by_hand(harness, untested, min)}
    assert {child.data.params["evaluate_on"] for child in tested} == {"best"}
    assert max(child.info.end_time for child in untested) <= min(child.info.start_time for child in tested)
    assert len(sweep_json(parent)) == 6

    assert harness.main(*TUNED) is None
    assert "sweep tune: 2 cells: 2 done, 0 to resume, 0 to run" in " ".join(capsys.readouterr().out.split())
    assert len(harness.cells()) == 6
    assert harness.main(f"report.dir={tmp_path}", entry_point="report") is None
    said = " ".join(capsys.readouterr().out.split())
    assert "mnist5k: test set read 2 times in this store." in said
    assert "in runs that did not read the test images" in said
    # Weights of the last epoch: the rate is chosen by the last epoch too, and what was trained is not trained again.
    assert harness.main(*TUNED, "evaluate_on=last") is None
    newer = [child for child in harness.cells() if child.data.params["evaluate_on"] == "last"]
    assert {each.data.params["optim.lr"] for each in newer} == {
        chosen_by_hand(harness, untested, lambda curve: curve[-1])
    }
    assert len(harness.cells()) == 8
    harness.client.delete_run(newer[0].info.run_id)
    assert harness.main("report.sweep=tune", f"report.dir={tmp_path}", entry_point="report") is None
    assert "mnist5k: test set read 4 times in this store." in " ".join(capsys.readouterr().out.split())


def test_the_table_of_a_sweep_is_sorted_by_validation():
    cells = [
        SweepCell(name, name, [], "mlp", "mnist5k", 1, status=status, val_acc=val_acc, test_acc=test_acc)
        for name, status, val_acc, test_acc in (
            ("a", "done", 0.90, 0.99), ("b", "done", 0.95, 0.91), ("c", "done", 0.93, None), ("d", "killed", None, None)
        )
    ]  # fmt: skip
    assert [row[0] for row in rows(cells)] == ["d", "b", "c", "a"]


def test_what_is_chosen_by_validation_must_be_tested(harness):
    end = harness.main(*TUNED, "evaluate_on=none")
    assert end == "error: evaluate_on=none: what sweep.fresh_seeds chooses is tested; allowed: best, last"
    end = harness.main(*TUNED, "monitor=val/acc")
    assert end == "error: monitor=val/acc: sweep.fresh_seeds chooses rates by val/loss; allowed: val/loss"
    assert not harness.folder.exists()
