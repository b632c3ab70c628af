"""What an epoch is judged by: the lowest val/loss, or the highest val/acc."""

from collections.abc import Mapping
from typing import Any

MODES = {"val/loss": "min", "val/acc": "max"}


def loss_of(metrics: Mapping[str, Any], monitor: str) -> float:
    """Return what is lower the better an epoch is: its loss, or its share of errors where an accuracy is monitored."""
    value = float(metrics[monitor])
    return value if MODES[monitor] == "min" else 1 - value
