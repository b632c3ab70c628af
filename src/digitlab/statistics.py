"""Say how sure a number is: plain values in, numbers out."""

from scipy.stats import binomtest


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of the share `correct` / `total`."""
    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
