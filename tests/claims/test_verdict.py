"""The rule of verdicts, on made-up results, with quantiles from scipy."""

from math import log, nan

import numpy as np
import pytest
from scipy import stats

from digitlab.analysis.records import Predictions, Result
from digitlab.claims.schema import Claim, Layers, Statement
from digitlab.claims.verdict import Outcome, judge


def run(seed: int, accuracy: float, loss: float = 0.03, data: str = "mnist") -> Result:
    return Result(
        run_id=str(seed), name=f"run {seed}", fingerprint=str(seed), model="m", optim="o", seed=seed, data=data, lr="1",
        accuracy=accuracy, loss=loss, test_images=10_000, val_acc=np.array([0.9, accuracy]), epoch_s=np.array([1.0]),
        steps_per_epoch=10, parameters=7, settings={}, command="", host="", began=0, ended=seed,
    )  # fmt: skip


def claim(accuracy: float | None, **more) -> Claim:
    return Claim("it", "000", "m", "o", "mnist", False, accuracy=accuracy, **more)


def outcome(claimed, accuracies, **more) -> Outcome:
    return Outcome(claimed, [run(seed, each, **more) for seed, each in enumerate(accuracies)])


FIVE = [0.9900, 0.9904, 0.9908, 0.9912, 0.9916]
# scipy's own t quantile: mean 0.9908, standard deviation 0.00063, one more value
HALF = stats.t.ppf(0.975, 4) * np.std(FIVE, ddof=1) * np.sqrt(1.2)


@pytest.mark.parametrize(
    ("claimed", "verdict"),
    [
        (0.9908, "REPRODUCED"),
        (round(0.9908 + HALF, 4) - 0.0001, "REPRODUCED"),
        (round(0.9908 + HALF, 4) + 0.0002, "WORSE"),
        (round(0.9908 - HALF, 4) - 0.0002, "BETTER"),
        (0.993, "REPRODUCED"),  # three digits: as low as 0.9925, which is inside
        (0.9931, "WORSE"),
        (0.994, "WORSE"),
        (None, "NOT COMPARABLE"),
    ],
)
def test_the_prediction_interval_widened_by_rounding_decides(claimed, verdict):
    assert judge(outcome(claim(claimed), FIVE))[0] == verdict


def test_the_reason_says_how_far_our_mean_is_from_the_claim():
    assert "our mean is 0.0082 below the claim" in judge(outcome(claim(0.999), FIVE))[1]


def test_fewer_than_five_runs_give_no_verdict():
    assert judge(outcome(claim(0.9908), FIVE[:4])) == ("TOO FEW", "n = 4 of 5")


def test_runs_on_other_data_are_not_comparable():
    verdict, reason = judge(outcome(claim(0.9908), FIVE, data="mnist5k"))
    assert verdict == "NOT COMPARABLE"
    assert "mnist5k" in reason


def fives(share: float) -> Predictions:
    """Predict a 5 for every image, of which `share` are one."""
    labels = np.where(np.arange(10_000) < round(share * 10_000), 5, 7)
    return Predictions(np.full(10_000, 5), labels)


def test_one_class_for_all_images_is_diverged_as_printed():
    # The printed numbers of tutorial 002: a 5 is predicted for every image, and 9,108 of 10,000 are not.
    assert (1 - 0.0892) * -log(1e-7) == pytest.approx(14.68, abs=0.005)
    raw = claim(0.0892, loss=14.68, diverges=True)
    shares = [0.0980, 0.1135, 0.0892, 0.1028, 0.0974]
    runs = [run(i, share, (1 - share) * -log(1e-7)) for i, share in enumerate(shares)]
    predictions = {each.run_id: fives(each.accuracy) for each in runs}
    assert judge(Outcome(raw, runs, predictions=predictions)) == (
        "DIVERGED AS PRINTED",
        "one class predicted in 5 of 5 runs",
    )
    for wrong in (
        predictions | {"0": Predictions(np.arange(10_000) % 2, predictions["0"].labels)},  # a second class
        predictions | {"0": fives(0.2)},  # of another accuracy than the run has
        {key: predictions[key] for key in "1234"},  # none are stored
    ):
        verdict, reason = judge(Outcome(raw, runs, predictions=wrong))
        assert verdict != "DIVERGED AS PRINTED"
        assert "one class predicted in 4 of 5 runs" in reason
    runs[0] = run(0, shares[0], 2.3)  # one class, but not the loss that clipping gives
    assert judge(Outcome(raw, runs, predictions=predictions))[0] != "DIVERGED AS PRINTED"
    # A network that learned is not judged diverged, though its document diverged.
    assert judge(outcome(raw, FIVE))[0] == "BETTER"


def test_a_recipe_with_a_diverged_run_does_not_reproduce():
    runs = [run(seed, 0.98) for seed in range(4)] + [run(4, 0.098, nan)]  # their interval holds every accuracy
    verdict, reason = judge(Outcome(claim(0.98), runs))
    assert verdict == "WORSE"
    assert "1 of 5 runs diverged" in reason


@pytest.mark.parametrize(("ratio", "word"), [(7.93, "true"), (7.4, "FALSE")])
def test_statements_are_checked(ratio, word):
    assert word in str(Statement("over 7.5 times", "one", "other", ratio, 7.5, float("inf")))


@pytest.mark.parametrize(("ours", "word"), [([320, 18496], ": the same"), ([320, 18497], "NOT the same")])
def test_parameters_of_layers_are_compared(ours, word):
    said = str(Layers([320, 18496], ours))
    assert f"320 and 18,496 parameters printed of the first layers, 320 and {ours[1]:,} counted" in said
    assert word in said
