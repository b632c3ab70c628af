"""A model card: what a model is for, how good it is and on what, where it fails, how to load it."""

from collections.abc import Mapping

import numpy as np

from digitlab.analysis.records import Predictions
from digitlab.documents.format import interval

BINS = 15  # of confidence, as in Guo et al. 2017
CONFUSIONS = 5  # pairs of classes that are named


def model_card(title: str, facts: Mapping[str, str], found: Predictions, how_to_load: str) -> str:
    """Return a model card in Markdown from what a model predicted for its test images; `facts` are its first lines."""
    total, correct = len(found.labels), int(np.sum(found.correct))
    lines = [f"# {title}", "", *(f"- {key}: {value}" for key, value in facts.items())]
    lines += [f"- test accuracy: {correct / total:.4f} ({interval(correct / total, total)})"]
    if found.confidence is not None and np.isfinite(found.confidence).all():
        error = calibration_error(found.confidence, found.correct)
        lines += [f"- calibration: expected calibration error {error:.4f} ({BINS} bins of confidence)"]
    lines += ["", "| class | images | precision | recall |", "| --- | ---: | ---: | ---: |", *_classes(found)]
    if mistakes := _confusions(found):
        lines += ["", f"Most frequent mistakes, predicted, not true: {', '.join(mistakes)}."]
    return "\n".join([*lines, "", "To load it:", "", "```python", how_to_load, "```", ""])


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Return the expected calibration error of confidences (N,) and whether each was right, bool (N,).

    Guo et al. 2017: the mean distance of accuracy from confidence over equal bins, each by its share of the images.
    """
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(abs(np.bincount(place, correct.astype(float) - confidence, BINS)).sum() / len(correct))


def _classes(found: Predictions) -> list[str]:
    lines = []
    for index, name in enumerate(found.classes):
        true, predicted = found.labels == index, found.predicted == index
        right = np.sum(true & predicted)
        shares = [f"{right / count:.4f}" if (count := np.sum(of)) else "none" for of in (predicted, true)]
        lines.append(f"| {name} | {np.sum(true):,} | {shares[0]} | {shares[1]} |")
    return lines


def _confusions(found: Predictions) -> list[str]:
    wrong = np.stack([found.predicted, found.labels], axis=1)[~found.correct]
    pairs, counts = np.unique(wrong, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:CONFUSIONS]
    return [f"{found.classes[pairs[i][0]]} not {found.classes[pairs[i][1]]} ({counts[i]})" for i in order]
