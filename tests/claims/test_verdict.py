"""The rule of verdicts, on made-up results, with quantiles from scipy."""

import re
from dataclasses import replace
from math import log, nan

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from digitlab.analysis.records import Predictions, Result
from digitlab.claims.schema import Claim
from digitlab.claims.verdict import Outcome, judge, may_be_settled, names_one_class
from digitlab.config import claimed


def run(seed: int, accuracy: float, loss: float = 0.03, data: str = "mnist") -> Result:
    return Result(
        run_id=str(seed), name=f"run {seed}", fingerprint=str(seed), model="m", optim="o", seed=seed, data=data, lr="1",
        accuracy=accuracy, loss=loss, test_images=10_000, val_acc=np.array([0.9, accuracy]),
        val_loss=np.array([0.1, 1 - accuracy]), epoch_s=np.array([1.0]),
        steps_per_epoch=10, parameters=7, settings={}, command="", host="", began=0, ended=seed,
    )  # fmt: skip


def claim(accuracy: float | None, **more) -> Claim:
    said = claimed.Claim(document="000", accuracy=accuracy).model_dump() | {"layers": None, "folds": 1}
    return Claim(name="it", model="m", optim="o", is_validated_on_test=False, **(said | more))


def outcome(claimed, accuracies, **more) -> Outcome:
    return Outcome(claimed, [run(seed, each, **more) for seed, each in enumerate(accuracies)])


def judged(of: Outcome) -> tuple[str, str]:
    judge([of])
    return of.verdict.word, of.verdict.reason


FIVE = [0.9902, 0.9905, 0.9908, 0.9911, 0.9914]
# scipy's own t quantile: mean 0.9908, standard deviation 0.00047, one more value; the interval of another sample of
# 10,000 images is ± 0.0019, which is wider
HALF = stats.t.ppf(0.975, 4) * np.std(FIVE, ddof=1) * np.sqrt(1.2)


@pytest.mark.parametrize(
    ("claimed", "verdict"),
    [
        (0.9908, "REPRODUCED"),
        (round(0.9908 + HALF, 4) - 0.0001, "REPRODUCED"),
        (round(0.9908 + HALF, 4) + 0.0002, "WORSE"),
        (round(0.9908 - HALF, 4) - 0.0002, "BETTER"),
        (0.9925, "WORSE"),
        (0.99, "REPRODUCED"),  # two digits: as low as 0.985 and as high as 0.995
        (0.993, "WORSE"),  # three digits: as low as 0.9925, which is outside
        (0.999, "WORSE"),
        (None, "NOT COMPARABLE"),
    ],
)
def test_the_prediction_interval_widened_by_rounding_decides(claimed, verdict):
    assert judged(outcome(claim(claimed), FIVE))[0] == verdict


@pytest.mark.parametrize(
    ("claimed", "end"),
    [(0.99, ", and the claim is rounded to ± 0.005"), (0.989, ", and 0.989 may be 0.9895"), (0.9908, " to 0.9922")],
)
def test_a_rounding_is_said_that_is_wider_than_the_interval_or_brings_the_claim_into_it(claimed, end):
    verdict, reason = judged(outcome(claim(claimed), FIVE))
    assert verdict == "REPRODUCED"
    assert reason.endswith(end)


def test_p_values_are_those_of_scipy_and_corrected_as_statsmodels_does():
    """A claim is one more value: Welch's test cannot be asked of it, the pooled two-sample test can."""
    claimed = [0.9931, 0.9908, 0.9929]
    outcomes = [outcome(claim(each), FIVE) for each in claimed]
    judge(outcomes)  # below four claims each has its own spread
    half_a_digit = 0.00005
    p_values = [stats.ttest_ind([max(each - half_a_digit, 0.9908)], FIVE, equal_var=True).pvalue for each in claimed]
    expected = multipletests(p_values, method="holm")[1]
    assert [each.verdict.p_value for each in outcomes] == pytest.approx(expected)
    assert [each.verdict.half for each in outcomes] == pytest.approx([HALF] * 3)


def test_a_wide_interval_reproduces_nothing_and_says_how_many_runs_would_do():
    wide = [0.9900, 0.9904, 0.9908, 0.9912, 0.9916]
    of = outcome(claim(0.9908), wide)
    verdict, reason = judged(of)
    sd, resolution = np.std(wide, ddof=1), 1.96 * np.sqrt(0.9908 * 0.0092 / 10_000)
    assert of.verdict.resolution == pytest.approx(resolution)
    halves = {n: stats.t.ppf(0.975, n - 1) * sd * np.sqrt(1 + 1 / n) for n in range(5, 20)}
    assert halves[5] > resolution
    enough = next(n for n, half in halves.items() if half <= resolution)
    assert (verdict, of.verdict.needed) == ("CANNOT TELL", enough)
    assert f"about {enough} runs would do" in reason


def test_widths_that_differ_by_little_are_told_apart():
    told_apart = 1.96 * np.sqrt(0.9908 * (1 - 0.9908) / 10_000) * 1.0005 / HALF  # a hair wider than the images tell
    word, reason = judged(outcome(claim(0.9908), [0.9908 + (each - 0.9908) * told_apart for each in FIVE]))
    width, least = map(float, re.findall(r"± ([\d.]+)", reason))
    assert word == "CANNOT TELL"
    assert width > least


def test_where_single_runs_differ_by_more_than_the_images_tell_no_number_of_runs_would_do():
    wider = [0.9880, 0.9894, 0.9908, 0.9922, 0.9936]
    assert 1.96 * np.std(wider, ddof=1) > 1.96 * np.sqrt(0.9908 * 0.0092 / 10_000)
    assert judged(outcome(claim(0.9908), wider))[0] == "CANNOT TELL"
    assert "no number of runs would do" in judged(outcome(claim(0.9908), wider))[1]


def test_spreads_of_training_are_not_pooled_with_those_of_the_test():
    outcomes = [outcome(claim(0.9908), np.round(0.99 + 0.0001 * width * np.arange(5), 4)) for width in (1, 2, 4, 6)]
    judge(outcomes)
    halves = [each.verdict.half for each in outcomes]
    judge([*outcomes, outcome(claim(0.9, images="train"), [0.9, 0.901, 0.902, 0.91, 0.92])])
    assert [each.verdict.half for each in outcomes] == halves


def test_outside_but_not_proven_over_all_claims_has_a_question_mark():
    claimed = 0.9928  # p = 0.016 by itself
    assert judged(outcome(claim(claimed), FIVE))[0] == "WORSE"
    both = [outcome(claim(claimed), FIVE), *(outcome(claim(0.9908), FIVE) for _ in range(2))]
    judge(both)
    assert [each.verdict.word for each in both] == ["WORSE?", "REPRODUCED", "REPRODUCED"]
    below = [outcome(claim(0.9888), FIVE), *(outcome(claim(0.9908), FIVE) for _ in range(2))]
    judge(below)
    assert below[0].verdict.word == "BETTER?"


@pytest.mark.parametrize("claimed", [0.9915, 0.9914, 0.9913])
def test_equal_runs_are_not_of_spread_zero(claimed):
    verdict, reason = judged(outcome(claim(claimed), [0.9914] * 5))
    assert verdict == "REPRODUCED"
    assert "lies in 0.9913 to 0.9915" in reason


def test_a_claim_of_every_image_right_can_be_reproduced():
    assert judged(outcome(claim(1.0), [1.0] * 5))[0] == "REPRODUCED"


@pytest.mark.parametrize("claimed", [0.9908, 0.992, 0.985, 0.9914, 0.9902])
def test_how_many_runs_reach_the_claim_and_its_percentile(claimed):
    of = outcome(claim(claimed), FIVE)
    digits = len(str(claimed)) - 2
    # As rounded in print, half up; scipy's percentile counts equal ones half.
    printed = [np.floor(each * 10**digits + 0.5 + 1e-6) / 10**digits for each in FIVE]
    assert of.reached == sum(each >= claimed - 1e-9 for each in printed)
    ties = stats.percentileofscore(np.round(printed, digits), claimed, kind="mean")
    assert of.percentile == pytest.approx(ties)


def test_fewer_than_five_runs_give_no_verdict():
    assert judged(outcome(claim(0.9908), FIVE[:4])) == ("TOO FEW", "n = 4 of 5")


def test_runs_on_other_data_are_not_comparable():
    of = outcome(claim(0.9908), FIVE, data="mnist5k")
    verdict, reason = judged(of)
    assert verdict == "NOT COMPARABLE"
    assert "mnist5k" in reason
    assert (of.reached, of.percentile, of.excess) == (None, None, None)


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

    def outcome_of(predictions: dict[str, Predictions]) -> Outcome:
        found = [each.run_id for each in runs if names_one_class(each, predictions.get(each.run_id))]
        return Outcome(raw, runs, one_class_runs=found)

    assert judged(outcome_of(predictions)) == ("DIVERGED AS PRINTED", "one class predicted in 5 of 5 runs")
    for wrong in (
        predictions | {"0": Predictions(np.arange(10_000) % 2, predictions["0"].labels)},  # a second class
        predictions | {"0": fives(0.2)},  # of another accuracy than the run has
        {key: predictions[key] for key in "1234"},  # none are stored
    ):
        verdict, reason = judged(outcome_of(wrong))
        assert verdict != "DIVERGED AS PRINTED"
        assert "one class predicted in 4 of 5 runs" in reason
    runs[0] = run(0, shares[0], 2.3)  # one class, but not the loss that clipping gives
    assert judged(outcome_of(predictions))[0] != "DIVERGED AS PRINTED"
    # A network that learned is not judged diverged, though its document diverged.
    assert judged(outcome(raw, FIVE))[0] == "BETTER"


def failing(accuracies, *failed: Result) -> list[Result]:
    return [*(run(seed, each) for seed, each in enumerate(accuracies)), *failed]


DIVERGING = run(98, 0.098, nan)
COLLAPSED = replace(run(99, 0.1135, 2.3), has_collapsed=True)


@pytest.mark.parametrize("failed", [DIVERGING, COLLAPSED])
@pytest.mark.parametrize(
    ("claimed", "verdict"),
    [
        (0.9908, "CANNOT TELL"),  # in the interval of the sound ones
        (0.995, "WORSE"),  # above them, and so above the failed one
        (0.98, "CANNOT TELL"),  # below the sound ones, above the failed one
    ],
)
def test_a_failed_run_reproduces_nothing(failed, claimed, verdict):
    of = Outcome(claim(claimed), failing(FIVE, failed))
    assert judged(of)[0] == verdict
    assert "1 of 6 runs diverged or are at chance" in of.verdict.reason
    assert of.accuracies == FIVE
    others = [outcome(claim(0.9908), FIVE) for _ in range(4)]
    judge([*others, of])
    assert [each.verdict.half for each in others] == pytest.approx([others[0].verdict.half] * 4)


@pytest.mark.parametrize(("n", "runs", "verdict"), [(5, 1, "WORSE?"), (20, 1, "WORSE"), (20, 5, "WORSE?")])
def test_where_every_run_failed_a_sound_run_is_among_those_of_the_claim(n, runs, verdict):
    claimed = claim(0.9908, runs=runs, statistic="best")
    of = Outcome(claimed, failing([], *[DIVERGING, COLLAPSED] * (n // 2), *[DIVERGING] * (n % 2)))
    assert judged(of)[0] == verdict
    draw = np.random.default_rng(0)
    sound = draw.permuted(np.tile(np.arange(n + runs) == 0, (20_000, 1)), axis=1)  # the only one, anywhere
    assert of.verdict.p_value == pytest.approx(sound[:, :runs].any(axis=1).mean(), abs=0.01)


def test_a_single_sound_run_tells_nothing():
    assert judged(Outcome(claim(0.9908), failing([0.98], *[DIVERGING] * 4)))[0] == "CANNOT TELL"


# Standard deviations of one run and means over five of nine claims on full MNIST, as of 2026-11-21.
SPREADS = np.array([0.00130, 0.00127, 0.00043, 0.00077, 0.00072, 0.00109, 0.00061, 0.00036, 0.00064])
MEANS = np.array([0.9808, 0.9756, 0.9914, 0.9903, 0.9810, 0.9914, 0.9909, 0.9915, 0.9919])


def simulate(repetitions: int, off: float, n: int) -> list[list[str]]:
    """Judge nine claims, each one more run of its recipe and `off` by so much, in every repetition."""
    draw = np.random.default_rng(0)
    words = []
    for _ in range(repetitions):
        values = np.round(MEANS[:, None] + SPREADS[:, None] * draw.standard_normal((9, n + 1)), 4)
        outcomes = [outcome(claim(round(own[-1] + off, 4)), own[:-1]) for own in values.tolist()]
        judge(outcomes)
        words.append([each.verdict.word for each in outcomes])
    return words


def at_most(share: float, repetitions: int) -> float:
    """Return `share` and three standard errors of a simulation."""
    return share + 3 * np.sqrt(share * (1 - share) / repetitions)


def test_a_true_claim_is_rarely_called_wrong():
    words = np.array(simulate(400, 0.0, 5))
    assert np.mean(np.isin(words, ["BETTER", "WORSE"]).any(axis=1)) <= at_most(0.05, 400)
    outside = np.isin(words, ["BETTER", "WORSE", "BETTER?", "WORSE?"])
    assert outside.mean() <= 0.05
    assert np.all(outside.mean(axis=0) <= at_most(0.09, 400))  # of the recipe of the widest spread


def test_a_claim_that_is_off_by_more_than_the_images_tell_is_rarely_reproduced():
    """A recipe of dense1000_adam's spread is called reproduced by a claim 0.3 points off in half of cases by itself."""
    words = np.array(simulate(400, 0.003, 5))
    assert np.mean(words[:, 5] == "REPRODUCED") <= at_most(0.1, 400)
    assert np.mean(words[:, 2] == "WORSE") >= 0.9


@pytest.mark.parametrize("off", [0.0, 0.003])
def test_looking_again_calls_few_true_claims_wrong(off):
    """Nine claims, each one more run of its recipe and `off` by so much, judged after 5, 10 and 20 runs."""
    draw, repetitions, any_wrong, used = np.random.default_rng(0), 150, 0, []
    for _ in range(repetitions):
        values = np.round(MEANS[:, None] + SPREADS[:, None] * draw.standard_normal((9, 21)), 4)
        claimed, counts, is_open = np.round(values[:, -1] + off, 4), np.zeros(9, int), np.ones(9, bool)
        for n in (5, 10, 20):
            counts[is_open] = n
            found = [
                outcome(claim(each), own[:k]) for each, own, k in zip(claimed, values.tolist(), counts, strict=True)
            ]
            judge(found)
            is_open &= [may_be_settled(each.verdict, 0.05 / 3) for each in found]
        any_wrong += any(each.verdict.word in ("BETTER", "WORSE") for each in found)
        used.append(counts.sum())
    if off:
        assert any_wrong >= 0.95 * repetitions
    else:
        assert any_wrong / repetitions <= at_most(0.055, repetitions)
        assert np.mean(used) <= 0.4 * 9 * 20
