"""Format numbers as text."""

from collections.abc import Sequence
from math import isinf, isnan
from statistics import mean

from digitlab.analysis.statistics import accuracy_interval, t_interval


def mean_of(values: Sequence[float], step: float = 0) -> str:
    """Write a mean ± half its 95 % t-interval, or a single value.

    Of multiples of `step` the interval is at least that of rounding; without one, equal values have none.
    """
    if len(values) < 2:
        return f"{values[0]:.4f}"
    low, high = t_interval(values, step=step)
    return f"{mean(values):.4f} " + (
        f"± {(high - low) / 2:.4f}" if step or max(values) > min(values) else "(all equal)"
    )


def interval(accuracy: float, images: int) -> str:
    """Write Wilson's 95 % interval of an accuracy on so many images."""
    low, high = accuracy_interval(accuracy, images)
    return f"95 % interval {low:.4f} to {high:.4f}, n = {images:,}"


def number(value: float, form: str) -> str:
    return "–" if isnan(value) else "∞" if isinf(value) else f"{value:{form}}"


def signed(value: float) -> str:
    """Write a difference, always with its sign."""
    return f"{value:+.4f}".replace("-", "−")


def p_value(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else number(value, ".4f")


def share(value: float) -> str:
    """Write a probability in percent."""
    if isnan(value):
        return "–"
    if value < 0.01:
        return "< 1 %"
    return "> 99 %" if value > 0.99 else f"{100 * value:.0f} %"
