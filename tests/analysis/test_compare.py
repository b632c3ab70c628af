"""Comparisons of made-up results whose true differences are known."""

from dataclasses import replace
from math import inf, isnan, nan

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from digitlab.analysis.compare import compare
from digitlab.analysis.fairness import CHANGED, caveats, confounders
from digitlab.analysis.records import Predictions, Result
from digitlab.report import decision, tables

IMAGES = 10_000


def result(model: str, optim: str, seed: int, accuracy: float, **other) -> Result:
    values = {
        "run_id": f"{model}{optim}{seed}{other.get('lr')}{accuracy}",
        "name": f"{model}-{optim}-s{seed}",
        "fingerprint": "",
        "data": "mnist",
        "lr": "0.1",
        "loss": 0.03,
        "test_images": IMAGES,
        "val_acc": np.array([0.9, 0.975, accuracy]),
        "val_loss": np.array([0.1, 0.025, 1 - accuracy]),
        "epoch_s": np.array([3.0, 2.0, 2.0]),
        "steps_per_epoch": 422,
        "parameters": 1000,
        "settings": {"trainer.max_epochs": "3", CHANGED: "false"},
        "command": "",
        "host": "here",
        "began": 0,
        "ended": 1,
    }
    return Result(model=model, optim=optim, seed=seed, accuracy=round(accuracy * IMAGES) / IMAGES, **values | other)


def cell(model: str, optim: str, *accuracies: float, **other) -> list[Result]:
    return [result(model, optim, seed, accuracy, **other) for seed, accuracy in enumerate(accuracies)]


def nothing(_: Result) -> None:
    return None


GOOD = cell("cnn", "adam", 0.9910, 0.9920, 0.9915)
EQUAL = cell("cnn", "adadelta", 0.9912, 0.9916, 0.9913)
WORSE = cell("mlp", "adam", 0.9800, 0.9811, 0.9803)


def by_name(comparison):
    return {cell.name: cell for cell in comparison.cells}


def test_the_best_is_marked_and_cells_indistinguishable_from_it():
    found = compare(WORSE + EQUAL + GOOD, nothing)
    assert [each.name for each in found.cells] == ["cnn/adam", "cnn/adadelta", "mlp/adam"]
    assert [each.is_best for each in found.cells] == [True, False, False]
    assert [each.is_tied for each in found.cells] == [False, True, False]
    best = "cnn/adam (★) is best at 0.9915 ± 0.0012 (n = 3) on these 10,000 test images"
    assert (
        decision.conclusion(found) == f"{best}; 1 of the 2 other cells (≈) is statistically indistinguishable from it."
    )
    assert decision.conclusion(compare(WORSE + GOOD, nothing)) == f"{best}; the other cell is worse."


def test_p_values_of_pairs_match_scipy_and_statsmodels():
    found = compare(WORSE + EQUAL + GOOD, nothing, margin=0.002)
    accuracies = {each.name: [run.accuracy for run in each.runs] for each in found.cells}
    samples = [(accuracies[pair.one.name], accuracies[pair.other.name]) for pair in found.pairs]
    expected = [stats.ttest_ind(*each, equal_var=False).pvalue for each in samples]  # Welch's, of fewer than four cells
    assert len(expected) == 3
    assert [pair.p for pair in found.pairs] == pytest.approx(expected, rel=1e-9)
    assert [pair.p_holm for pair in found.pairs] == pytest.approx(multipletests(expected, method="holm")[1], rel=1e-9)
    assert [each.p_best for each in found.cells[1:]] == pytest.approx([expected[0], min(1, expected[1])], rel=1e-9)
    interval = stats.ttest_ind(*samples[0], equal_var=False).confidence_interval()
    assert (found.pairs[0].low, found.pairs[0].high) == pytest.approx(tuple(interval), rel=1e-9)
    shifted = stats.ttest_ind(*(np.array(each) for each in (np.add(samples[0][1], 0.002), samples[0][0])),
                              equal_var=False, alternative="greater")  # fmt: skip
    assert found.pairs[0].p_equivalent == pytest.approx(shifted.pvalue, rel=1e-9)


def predictions(correct: int, of: int = IMAGES):
    predicted = np.zeros(of, int)
    predicted[correct:] = 1
    return Predictions(predicted, np.zeros(of, int))


def test_single_runs_are_compared_by_their_predictions():
    runs = cell("cnn", "adam", 0.99) + cell("cnn", "sgd", 0.9895) + cell("mlp", "adam", 0.97)
    found = compare(runs, lambda run: predictions(round(run.accuracy * IMAGES)))
    assert {pair.test for pair in found.pairs} == {"McNemar"}
    assert [pair.p for pair in found.pairs] == [
        stats.binomtest(count, count).pvalue for count in (5, 200, 195)
    ]  # the images that only one of two classifies correctly are all those of the better
    assert [each.is_tied for each in found.cells] == [False, True, False]
    assert any(note.startswith("One seed only: the interval is Wilson's over 10,000") for note in caveats(found))
    low, high = found.best.interval
    assert low == pytest.approx(0.98785, abs=1e-4)
    assert low < 0.99 < high


def test_cells_without_a_common_seed_are_compared():
    later = [replace(run, seed=run.seed + 3) for run in WORSE]
    (pair,) = compare(GOOD + later, nothing).pairs
    assert pair.test == "Welch's t"
    assert pair.difference == pytest.approx(np.mean([r.accuracy for r in GOOD]) - np.mean([r.accuracy for r in WORSE]))


def test_differences_are_over_all_seeds_and_unequal_ones_are_named():
    found = compare(GOOD + cell("mlp", "adam", 0.98, 0.981, 0.98, 0.979), nothing)
    (pair,) = found.pairs
    assert pair.difference == pytest.approx(0.9915 - 0.98, abs=1e-6)
    assert any(
        note.startswith("Unequal seeds: most cells have seeds 0 to 2, mlp/adam has seeds 0 to 3")
        for note in caveats(found)
    )


def classes(run) -> Predictions:
    return Predictions(np.zeros(1000, int), np.arange(1000) % 10)


@pytest.mark.parametrize(("accuracy", "loss", "said"), [(0.098, nan, "diverged"), (0.1, 2.3, "at chance")])
def test_a_run_that_failed_is_counted_in_no_mean_and_not_compared(accuracy, loss, said):
    broken = result("cnn", "sgd", 2, accuracy, loss=loss, val_acc=np.array([0.9, 0.1, 0.1]))
    found = compare([*GOOD, *cell("cnn", "sgd", 0.995, 0.996), broken], classes)
    sgd = by_name(found)["cnn/sgd"]
    assert sgd.accuracy == pytest.approx((0.995 + 0.996) / 2)
    assert (sgd.failed, sgd.is_best, sgd.is_tied, found.best.name) == (1, False, False, "cnn/adam")
    assert tables.matrix_entry(sgd).startswith(f"1 of 3 {said}; others 0.9955")
    assert any("cnn-sgd-s2. Cells with such a run are shown last and not compared" in note for note in caveats(found))
    assert decision.conclusion(found).endswith("1 cell with a run that diverged or is at chance is not compared.")
    reach = next(each for each in found.reaches if each.cell is sgd and each.target == 0.97)
    assert (reach.reached, reach.epochs, reach.steps, reach.seconds) == (2, 2, 844, 5)


def test_where_every_cell_has_a_failed_run_there_is_no_best():
    found = compare([result("cnn", "sgd", 0, 0.1, loss=nan), result("cnn", "adam", 0, 0.1, loss=nan)], nothing)
    assert found.best is None
    assert decision.conclusion(found).startswith("There is no best cell")


def test_two_test_sets_under_one_name_are_an_error():
    other = [replace(run, settings=run.settings | {"data digest": "b"}) for run in WORSE]
    with pytest.raises(ValueError, match=r"mnist is not the same images in all runs.*dataset\.digest = ''"):
        compare(GOOD + other, nothing)


def test_a_target_that_most_runs_miss_takes_infinite_time():
    runs = cell("cnn", "adam", 0.97, 0.972, 0.991)
    found = compare(runs, nothing)
    assert [(each.target, each.reached, each.epochs) for each in found.reaches] == [
        (0.97, 3, 2), (0.98, 1, inf), (0.99, 1, inf)
    ]  # fmt: skip


def test_seconds_are_only_from_runs_that_had_their_machine_to_themselves():
    slow = [replace(run, epoch_s=run.epoch_s * 10, is_exclusive=False) for run in GOOD[:2]]
    found = compare(slow + GOOD[2:], nothing)
    assert (found.best.epoch_s, found.best.seconds) == (2, 7)  # epochs of 3, 2 and 2 s
    assert found.reaches[0].seconds == 5
    assert any(note.startswith("Seconds are from 1 of 3 runs") for note in caveats(found))
    contended = compare([replace(run, is_exclusive=False) for run in GOOD], nothing)
    assert isnan(contended.best.epoch_s)
    assert contended.reaches[0].epochs == 2


@pytest.mark.parametrize(
    ("seconds", "is_said"), [([9, 2, 2], False), ([3, 2, 4], True), ([3, 2, 2.5], False), ([0.09, 0.02, 0.06], False)]
)
def test_seconds_that_other_programs_disturbed_are_said(seconds, is_said):
    runs = [replace(run, epoch_s=np.array(seconds, float)) for run in GOOD]
    notes = caveats(compare(runs, nothing))
    assert any("Do not rank by them" in note for note in notes) == is_said


def test_learning_rates_are_chosen_on_validation_alone():
    low = [
        replace(run, val_acc=np.array([0.5, 0.98]), val_loss=np.array([1.5, 0.08]), accuracy=0.999)
        for run in cell("cnn", "sgd", 0.9, 0.9, lr="0.01")
    ]
    high = [
        replace(run, val_acc=np.array([0.99, 0.5]), val_loss=np.array([0.05, 2.0]), accuracy=0.985)
        for run in cell("cnn", "sgd", 0.9, 0.9, lr="1.0")
    ]
    rates = ("optim.lr", "scheduler.max_lr")  # a scheduler's highest rate is the same choice under another name
    runs = [replace(run, settings=run.settings | dict.fromkeys(rates, run.lr)) for run in low + high]
    found = compare(runs, nothing)
    (only,) = found.cells
    assert (only.name, only.accuracy, {run.lr for run in only.runs}) == ("cnn/sgd", 0.985, {"1.0"})
    assert [(rate.lr, rate.values, rate.is_chosen) for rate in only.rates] == [
        ("0.01", [0.98, 0.98], False),
        ("1.0", [0.99, 0.99], True),
    ]
    assert any("were chosen by mean validation loss among tested runs" in note for note in caveats(found))
    # Weights of the last epoch are tested: their loss chooses the rate too, and the other one wins.
    (last,) = compare([replace(run, settings=run.settings | {"evaluate_on": "last"}) for run in runs], nothing).cells
    assert last.runs[0].lr == "0.01"


def test_other_swept_settings_are_compared_too():
    runs = [
        replace(run, settings=run.settings | {"model.dropout": dropout}, run_id=run.run_id + dropout)
        for dropout, runs in (("true", GOOD), ("false", cell("cnn", "adam", 0.985, 0.986, 0.984)))
        for run in runs
    ]
    found = compare(runs, nothing)
    assert [each.name for each in found.cells] == ["cnn/adam model.dropout=true", "cnn/adam model.dropout=false"]
    assert not confounders(found)


def test_of_two_runs_of_the_same_seed_the_first_counts_and_all_are_named():
    found = compare([replace(GOOD[0], accuracy=0.6, began=2), *GOOD], nothing)
    assert [run.accuracy for run in found.best.runs] == [0.991, 0.992, 0.9915]
    assert "Run 2 times, of which the first counts: cnn-adam-s0, with accuracies 0.9910, 0.6000." in caveats(found)


def test_a_confounder_is_named_with_the_runs_of_each_value():
    odd = [replace(run, settings=run.settings | {"trainer.max_epochs": "5"}) for run in WORSE[:1]]
    found = compare(GOOD + EQUAL + odd + WORSE[1:], nothing)
    assert confounders(found) == ["trainer.max_epochs: 3 (8 runs); 5 (mlp-adam-s0)"]


def test_a_key_of_one_optimizer_is_a_confounder_only_with_two_values():
    def having(runs, **settings):
        named = {key.replace("_", "."): value for key, value in settings.items()}
        return [replace(run, settings=run.settings | named) for run in runs]

    consistent = having(GOOD, optim_eps="1e-07") + having(EQUAL, optim_rho="0.95") + having(WORSE, optim_eps="1e-07")
    assert confounders(compare(consistent, nothing)) == []
    inconsistent = having(GOOD, optim_eps="1e-07") + having(EQUAL, optim_rho="0.95") + having(WORSE, optim_eps="1e-08")
    assert confounders(compare(inconsistent, nothing)) == ["optim.eps of adam: 1e-07 (3 runs); 1e-08 (3 runs)"]


def test_uncommitted_code_is_named():
    dirty = [replace(run, settings=run.settings | {CHANGED: "true"}) for run in GOOD]
    assert confounders(compare(dirty, nothing)) == [
        f"{CHANGED}: true (all 3 runs): no commit contains the code that they ran"
    ]
    assert confounders(compare(dirty + WORSE, nothing)) == [f"{CHANGED}: true (3 runs); false (3 runs)"]


def test_validation_on_the_test_set_is_named():
    leaked = [replace(run, settings=run.settings | {"data.split": "test"}) for run in GOOD]
    assert any(note.startswith("Validated on the test set: 3 runs") for note in caveats(compare(leaked, nothing)))
    assert caveats(compare(GOOD, nothing)) == []


def test_no_runs_and_mixed_data_are_errors_that_say_what_to_do():
    with pytest.raises(ValueError, match="no run is done"):
        compare([], nothing)
    with pytest.raises(ValueError, match=r"mixed data: mnist \(3 runs\), mnist5k \(3 runs\).*report\.filter="):
        compare(GOOD + [replace(run, data="mnist5k") for run in WORSE], nothing)


def test_a_single_cell_is_reported():
    found = compare(GOOD, nothing)
    assert (
        decision.conclusion(found) == "cnn/adam is at 0.9915 ± 0.0012 (n = 3) on these 10,000 test images; "
        "there is nothing to compare it with."
    )


def many(networks: int, seeds: int, optims=("adam", "sgd")) -> list[Result]:
    draw = np.random.default_rng(0)
    return [
        result(f"net{network}", optim, seed, 0.98 + 0.002 * network - 0.01 * (optim == "sgd") + draw.normal(0, 0.0005))
        for network in range(networks) for optim in optims for seed in range(seeds)
    ]  # fmt: skip


def test_optimizers_are_compared_over_three_networks_of_three_seeds():
    runs = many(3, 3)
    adam, sgd = compare(runs, nothing).aggregates.rows
    assert (adam.arm, adam.networks, adam.runs, sgd.arm) == ("adam", 3, 9, "sgd")
    means = [np.mean([run.accuracy for run in runs if run.optim == optim]) for optim in ("adam", "sgd")]
    assert sgd.difference[0] == pytest.approx(means[0] - means[1])
    assert sgd.difference[1] < means[0] - means[1] < sgd.difference[2]
    assert sgd.improvement[0] == 1
    assert compare(many(2, 3), nothing).aggregates.rows == []
    assert compare(many(3, 2), nothing).aggregates.rows == []
    ranked = compare(many(5, 3, ("adam", "sgd", "adadelta")), nothing).aggregates
    assert ranked.critical_difference == pytest.approx(2.343 * (3 * 4 / (6 * 5)) ** 0.5, rel=1e-3)
