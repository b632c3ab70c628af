"""How learning rates are chosen without the test images, and what is said of it."""

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest
from test_compare import cell, nothing, result

from digitlab.analysis.compare import compare
from digitlab.analysis.fairness import CHANGED, caveats
from digitlab.analysis.records import Result, chosen_val_loss


def untested(model: str, optim: str, *accuracies: float, **other) -> list[Result]:
    settings = {"trainer.max_epochs": "3", CHANGED: "false", "evaluate_on": "none"}
    runs = cell(model, optim, *accuracies, **{"settings": settings} | other)
    return [replace(run, accuracy=nan, run_id=f"{run.run_id} untested") for run in runs]


def test_a_rate_chosen_without_the_test_images_is_shown_by_other_seeds():
    tried = untested("cnn", "sgd", 0.97, 0.98, lr="0.01") + untested("cnn", "sgd", 0.98, 0.985, lr="0.1")
    tested = [result("cnn", "sgd", seed, 0.99, lr="0.1") for seed in (2, 3, 4)]
    misleading = [result("cnn", "sgd", seed, 0.999, lr="0.01") for seed in (2, 3)]  # of a rate that was not chosen
    used = [result("cnn", "sgd", 0, 0.1, lr="0.1")]  # its seed chose the rate
    (only,) = compare(tried + tested + misleading + used, nothing).cells
    assert (only.accuracy, sorted(only.accuracies)) == (pytest.approx(0.99), [2, 3, 4])
    assert [(rate.lr, rate.is_chosen, len(rate.values)) for rate in only.rates] == [
        ("0.01", False, 2),
        ("0.1", True, 2),
    ]
    notes = caveats(compare(tried + tested, nothing))
    assert any("in runs that did not read the test images" in note for note in notes)
    assert not any("among tested runs" in note for note in notes)
    with pytest.raises(ValueError, match="no run has been tested"):
        compare(tried, nothing)
    with pytest.raises(ValueError, match="no chosen learning rate has been tested"):
        compare(tried + misleading, nothing)


def notes_of(rates: dict[str, tuple[float, ...]], *others: Result) -> str:
    tried = [run for lr, accuracies in rates.items() for run in untested("cnn", "sgd", *accuracies, lr=lr)]
    best = max(rates, key=lambda lr: np.mean(rates[lr]))
    tested = [result("cnn", "sgd", seed, 0.98, lr=best) for seed in (8, 9)]
    return "\n".join(caveats(compare([*tried, *tested, *others], nothing)))


def test_what_limits_a_choice_of_rates_is_said():
    inside = {"0.01": (0.97, 0.97), "0.1": (0.98, 0.98), "1.0": (0.97, 0.97)}
    said = notes_of(inside)
    for words in (
        "At the edge",
        "One seed for a learning rate",
        "Unequal numbers of learning",
        "unequal numbers of seeds",
    ):
        assert words not in said
    for edge in ("0.01", "1.0"):
        assert "At the edge of the learning rates tried: cnn/sgd." in notes_of(inside | {edge: (0.99, 0.99)})
    assert "One seed for a learning rate in cnn/sgd" in notes_of({lr: of[:1] for lr, of in inside.items()})
    assert "unequal numbers of seeds in cnn/sgd" in notes_of(inside | {"0.1": (0.98, 0.98, 0.98)})
    others = untested("cnn", "adam", 0.97, lr="0.2") + untested("cnn", "adam", 0.985, lr="0.4")
    others += [result("cnn", "adam", 8, 0.98, lr="0.4"), result("cnn", "adam", 9, 0.98, lr="0.4")]
    assert "Unequal numbers of learning rates tried" in notes_of(inside, *others)


def test_the_loss_that_chooses_a_rate_is_that_of_the_weights_that_are_tested():
    assert chosen_val_loss(np.array([0.3, 0.1, 0.2]), "best") == pytest.approx(0.1)
    assert chosen_val_loss(np.array([0.3, 0.1, 0.2]), "last") == pytest.approx(0.2)
    assert chosen_val_loss(np.array([0.3, nan]), "best") == pytest.approx(0.3)
    assert chosen_val_loss(np.array([0.3, nan]), "last") == inf
    assert chosen_val_loss(np.array([]), "best") == inf
    rising = untested("cnn", "sgd", 0.9, lr="0.01")[0]
    early = replace(rising, val_loss=np.array([0.01, 0.5]))
    late = replace(rising, lr="0.1", run_id="late", val_loss=np.array([0.2, 0.1]))
    for evaluate_on, lr in (("best", "0.01"), ("last", "0.1")):
        tested = [
            result("cnn", "sgd", seed, 0.98, lr=rate, settings={"evaluate_on": evaluate_on})
            for rate in ("0.01", "0.1") for seed in (5, 6)
        ]  # fmt: skip
        (only,) = compare([early, late, *tested], nothing).cells
        assert only.runs[0].lr == lr
