"""The metrics of torchmetrics that have a name here, and whether a metric is one that a run can record."""

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torchmetrics import Metric, classification

from digitlab.analysis.statistics import BINS
from digitlab.config.errors import one_line

# Of classes with their share of the images: averages over classes are "macro", each class counts alike.
NAMED: Mapping[str, partial[Metric]] = {
    "f1_macro": partial(classification.MulticlassF1Score, average="macro"),
    "precision_macro": partial(classification.MulticlassPrecision, average="macro"),
    "recall_macro": partial(classification.MulticlassRecall, average="macro"),
    "top2": partial(classification.MulticlassAccuracy, average="micro", top_k=2),
    "top3": partial(classification.MulticlassAccuracy, average="micro", top_k=3),
    "top5": partial(classification.MulticlassAccuracy, average="micro", top_k=5),
    "auroc": partial(classification.MulticlassAUROC, average="macro"),
    "mcc": partial(classification.MulticlassMatthewsCorrCoef),
    "kappa": partial(classification.MulticlassCohenKappa),
    "ece": partial(classification.MulticlassCalibrationError, n_bins=BINS, norm="l1"),
}


def named_metric(name: str, num_classes: int) -> Metric:
    """Return the metric of a name of NAMED; raise ValueError where it says nothing of so few classes."""
    make = NAMED[name]
    if num_classes <= make.keywords.get("top_k", 1):
        raise ValueError(f"is always 1 of {num_classes} classes")
    return make(num_classes=num_classes, validate_args=False)  # to check labels, a GPU would be waited for


def check_metric(metric: Metric, num_classes: int) -> None:
    """Raise ValueError where `metric` does not make one number of probabilities and labels."""
    labels = torch.arange(num_classes)
    metric = metric.clone()
    with warnings.catch_warnings(action="ignore"):  # of what a few images do not tell
        try:
            metric.update(torch.eye(num_classes), labels)
            value: Any = metric.compute()
        except Exception as error:
            raise ValueError(f"fails on probabilities and labels: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise ValueError("gives more than one number")
