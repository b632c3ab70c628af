"""Metrics of torchmetrics by name, against scikit-learn, and what of a run depends on them."""

from typing import get_args

import numpy as np
import pytest
from sklearn import metrics
from sklearn.calibration import calibration_curve
from torchmetrics.classification import MulticlassFBetaScore

from digitlab.config.schema import Run
from digitlab.training.metrics import BINS, NAMED

SMALL = ("data=mnist5k", "data.test_fraction=0.6", "data.val_fraction=0.3", "trainer=cpu", "model=mlp")
SMALL += ("model.hidden=[{units: 8}]", "trainer.max_epochs=2", "data.batch_size=10", "optim.lr=0.01")
F2 = "{_target_: torchmetrics.classification.MulticlassFBetaScore, beta: 2.0}"


def stored(harness) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities, predictions and labels of the newest run."""
    folder = harness.runs()[0].info.artifact_uri.removeprefix("file://")
    with np.load(f"{folder}/predictions.npz") as arrays:
        return arrays["probabilities"], arrays["probabilities"].argmax(1), arrays["labels"]


def calibration_error(probabilities: np.ndarray, predicted: np.ndarray, labels: np.ndarray) -> float:
    confidence, correct = probabilities.max(1), predicted == labels
    shares, means = calibration_curve(correct, confidence, n_bins=BINS)
    counts = np.histogram(confidence, np.linspace(0, 1, BINS + 1))[0]
    return float(np.sum(counts[counts > 0] * abs(shares - means)) / len(labels))


@pytest.mark.lean
def test_every_name_measures_what_scikit_learn_does(harness):
    harness.train(*SMALL, f"++metrics=[{', '.join(NAMED)}, {F2}]")
    (run,) = harness.runs()
    probabilities, predicted, labels = stored(harness)
    expected = {
        "f1_macro": metrics.f1_score(labels, predicted, average="macro"),
        "precision_macro": metrics.precision_score(labels, predicted, average="macro"),
        "recall_macro": metrics.recall_score(labels, predicted, average="macro"),
        "top2": metrics.top_k_accuracy_score(labels, probabilities, k=2),
        "top3": metrics.top_k_accuracy_score(labels, probabilities, k=3),
        "top5": metrics.top_k_accuracy_score(labels, probabilities, k=5),
        "auroc": np.mean([metrics.roc_auc_score(labels == each, probabilities[:, each]) for each in range(10)]),
        "mcc": metrics.matthews_corrcoef(labels, predicted),
        "kappa": metrics.cohen_kappa_score(labels, predicted),
        "ece": calibration_error(probabilities, predicted, labels),
        "MulticlassFBetaScore": metrics.fbeta_score(labels, predicted, beta=2, average="macro"),
    }
    assert expected.keys() - {MulticlassFBetaScore.__name__} == NAMED.keys()
    for name, value in expected.items():
        assert run.data.metrics[f"test/{name}"] == pytest.approx(value, abs=1e-5), name
        assert [step for step, _ in harness.history(run, f"val/{name}")] == [0, 1, 2]


@pytest.mark.lean
def test_a_metric_changes_what_is_recorded_and_nothing_else(harness, capsys):
    harness.train(*SMALL)
    plain = stored(harness)[0]
    harness.train(*SMALL, "++metrics=[top2, f1_macro]")
    harness.train(*SMALL, "++metrics=[f1_macro, top2]")
    assert "is done already" in capsys.readouterr().out
    harness.train(*SMALL, "++metrics=[]")
    assert "is done already" in capsys.readouterr().out
    measured, without = harness.runs()  # a run that lacks the metrics does not answer for one that has them
    assert np.array_equal(plain, stored(harness)[0])
    assert set(measured.data.metrics) - set(without.data.metrics) == {
        "val/f1_macro", "test/f1_macro", "val/top2", "test/top2"
    }  # fmt: skip
    assert measured.info.run_name == without.info.run_name


def test_the_names_are_those_of_the_schema():
    (inner,) = get_args(Run.model_fields["metrics"].annotation)
    assert set(get_args(get_args(inner)[0])) == NAMED.keys()


@pytest.mark.parametrize(
    ("chosen", "line"),
    [
        ("[f1]", "metrics.0=f1: must be f1_macro, precision_macro, recall_macro, top2, top3, top5, auroc, mcc, kappa"),
        ("f1_macro", "metrics=f1_macro: must be a list, each of it f1_macro, "),
        ("[top2, top2]", "metrics.1=top2: is measured already"),
        ("[{_target_: torchmetrics.classification.MulticlassConfusionMatrix}]",
         "metrics.0=MulticlassConfusionMatrix: gives more than one number"),
        ("[{_target_: torchmetrics.image.fid.FrechetInceptionDistance}]",
         "metrics.0._target_=torchmetrics.image.fid.FrechetInceptionDistance: must be a class of Metric"),
        ("[{_target_: torch.nn.Linear}]", "metrics.0._target_=torch.nn.Linear: must be a class of Metric"),
        ("[{_target_: torchmetrics.classification.MulticlassF1Score, num_classes: 3}]",
         "metrics.0: num_classes: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(harness, chosen, line):
    assert str(harness.main(*SMALL, f"metrics={chosen}")).startswith(f"error: {line}")
    assert not harness.folder.exists()


def test_the_best_five_of_three_classes_are_refused(harness, monkeypatch, tmp_path):
    from PIL import Image

    for number in range(60):
        folder = tmp_path / "images" / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 4 * number, np.uint8)).save(folder / f"{number}.png")
    told = ("data=image_folder", f"data.root={tmp_path / 'images'}", "trainer=cpu", "model=mlp", "metrics=[top5]")
    assert harness.main(*told) == "error: metrics.0=top5: is always 1 of 3 classes"
    assert not harness.folder.exists()
