"""Measure the model of a run on labelled images: accuracy, calibration, mistakes, and what it withstands."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from digitlab.analysis.statistics import BINS, wilson
from digitlab.data.corrupt import KINDS, STRENGTHS, corrupt
from digitlab.documents.format import interval
from digitlab.inference import labelled
from digitlab.inference.labelled import Labelled
from digitlab.inference.model import TrackedModel, tracked_model
from digitlab.platform import console
from digitlab.plots import evaluation_figures, run_figures
from digitlab.tracking.run import Run
from digitlab.tracking.store import Store

SMALLEST = 1e-7  # a probability in the loss, as in Keras's


@dataclass(frozen=True)
class Scores:
    """What a model scores on N images; per class arrays are (C,), nan for a class without images."""

    images: int
    correct: int
    loss: float
    calibration_error: float
    per_class: Mapping[str, np.ndarray]

    @property
    def accuracy(self) -> float:
        return self.correct / self.images

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.correct, self.images)


def score(probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    """Score probabilities (N, C) against labels (N,)."""
    given, truth, count = torch.from_numpy(probabilities), torch.from_numpy(labels), probabilities.shape[1]
    right = probabilities[np.arange(len(labels)), labels]
    numbers = np.bincount(labels, minlength=count)
    per_class: dict[str, np.ndarray] = {}
    for name, metric in (
        ("precision", multiclass_precision),
        ("recall", multiclass_recall),
        ("f1", multiclass_f1_score),
    ):
        values = metric(given, truth, num_classes=count, average="none").numpy().astype(float)
        per_class[name] = np.where(numbers > 0, values, np.nan)
    return Scores(
        images=len(labels),
        correct=int((probabilities.argmax(1) == labels).sum()),
        loss=float(-np.log(np.maximum(right.astype(float), SMALLEST)).mean()),
        calibration_error=float(multiclass_calibration_error(given, truth, num_classes=count, n_bins=BINS)),
        per_class=per_class | {"images": numbers},
    )


def evaluate(store: Store, reference: str, overrides: Sequence[str], whole: bool, corrupted: bool) -> int:
    """Evaluate a run's model, show the result and write it into the run under eval/; return the exit code.

    The folder has the name of the data, and unless they are the run's own test images what tells them from others.
    """
    model = tracked_model(store, reference)
    found = labelled.load(store, model, overrides, whole)
    labels = found.labels.numpy()
    probabilities = model.predict(found.images)
    scores = score(probabilities, labels)
    folder = f"eval/{found.name}" if found.is_own else f"eval/{found.name}-{found.digest}"
    _show(model, found, scores)
    curves = _withstand(model, found) if corrupted else {}
    with store.translate_errors():
        run = Run(store.client, store.client.get_run(model.run_id))
        run.log_text(json.dumps(_record(model, found, scores, curves), indent=1), f"{folder}/results.json")
        for name, figure in _figures(model, found, probabilities, scores, curves).items():
            run.log_figure(figure, f"{folder}/{name}.png")
    console.say(f"written to run {model.run_id}: {folder}/; see {store.ui_hint}")
    return 0


def _show(model: TrackedModel, found: Labelled, scores: Scores) -> None:
    console.show_summary(
        f"{model.name} (run {model.run_id[:8]})",
        {
            "data": f"{found.name}: {scores.images:,} images, {found.remark}",
            "accuracy": f"{scores.accuracy:.4f}  ({interval(scores.accuracy, scores.images)})",
            "loss": f"{scores.loss:.4f}",
            "calibration": f"{scores.calibration_error:.4f} expected error, of {BINS} bins",
        },
    )
    names = ("precision", "recall", "f1")
    rows = [
        [each, *("–" if np.isnan(value := scores.per_class[name][index]) else f"{value:.4f}" for name in names),
         f"{scores.per_class['images'][index]:,}"]
        for index, each in enumerate(model.classes)
    ]  # fmt: skip
    console.show_table(("class", *names, "images"), rows)


def _withstand(model: TrackedModel, found: Labelled) -> dict[str, list[tuple[float, float, float]]]:
    """Return accuracy and its interval by kind of corruption, one for each strength; and show them."""
    labels, curves = found.labels.numpy(), {}
    for kind in KINDS:
        curves[kind] = []
        for strength in STRENGTHS:
            predicted = model.predict(corrupt(found.images, kind, strength)).argmax(1)
            correct = int((predicted == labels).sum())
            curves[kind].append((correct / len(labels), *wilson(correct, len(labels))))
    rows = [[kind, *(f"{accuracy:.4f}" for accuracy, _, _ in points)] for kind, points in curves.items()]
    console.show_table(("corruption, by strength", *map(str, STRENGTHS)), rows)
    return curves


def _record(model: TrackedModel, found: Labelled, scores: Scores, curves: Mapping[str, Any]) -> dict[str, Any]:
    per_class = {
        each: {
            name: None if np.isnan(values[index]) else float(values[index]) for name, values in scores.per_class.items()
        }
        for index, each in enumerate(model.classes)
    }
    named = ("accuracy", "low", "high")
    robustness = {kind: [dict(zip(named, point, strict=True)) for point in points] for kind, points in curves.items()}
    return {
        "data": found.name,
        "digest": found.digest,
        "images": scores.images,
        "of": found.remark,
        "accuracy": scores.accuracy,
        "interval": scores.interval,
        "loss": scores.loss,
        "calibration_error": scores.calibration_error,
        "per_class": per_class,
        **({"corrupted": robustness} if curves else {}),
    }


def _figures(
    model: TrackedModel, found: Labelled, probabilities: np.ndarray, scores: Scores, curves: Mapping[str, Any]
) -> dict[str, Any]:
    labels, on = found.labels.numpy(), f"{model.name} on {found.name}"
    figures = run_figures.predictions(found.images.numpy(), labels, probabilities, model.classes, on, "images")
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(1) == labels
    believed = f"{on}: expected calibration error {scores.calibration_error:.4f}"
    figures["reliability"] = evaluation_figures.reliability(confidence, correct, BINS, believed)
    if curves:
        figures["corrupted"] = evaluation_figures.robustness(curves, STRENGTHS, scores.accuracy, f"{on}, corrupted")
    return figures
