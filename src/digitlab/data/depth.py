"""Make bytes of pixel values of other kinds."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

DEPTHS = (8, 10, 12, 14, 16)  # bits that scanners, cameras and microscopes give
BRIGHT = 128  # whole numbers below it are no bytes: as such they would all be dark


class Range(NamedTuple):
    """The lowest and the highest of some values, and whether all of them are whole numbers."""

    low: float
    high: float
    is_whole: bool

    @classmethod
    def of(cls, values: np.ndarray) -> "Range":
        """Return that of some values; ValueError where one is no number."""
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        if not np.isfinite([low, high]).all():
            raise ValueError("has values that are no numbers")
        return cls(low, high, values.dtype.kind != "f" or bool((values == np.floor(values)).all()))

    @classmethod
    def around(cls, ranges: Iterable["Range"]) -> "Range":
        """Return the range of what several hold together."""
        lows, highs, are_whole = zip(*ranges, strict=True)
        return cls(min(lows), max(highs), all(are_whole))


def depth(values: Range, remarks: list[str]) -> tuple[float, float]:
    """Return the factor that makes 0..255 of values, and what is subtracted before; `remarks` gets what is to be said.

    Values from 0 to 1 are shares of white. Whole numbers of which one is BRIGHT are of as many bits as the largest
    needs. Of all others the largest is white, and where some are negative the lowest is black.
    """
    low, high, is_whole = values
    if low < 0:
        remarks.append(f"values from {low:g} to {high:g} scaled to 0..255")
        return 255 / max(high - low, 1e-30), low
    if high <= 1:
        remarks.append("values in 0..1 scaled to 0..255")
        return 255.0, 0.0
    bits = next((bits for bits in DEPTHS if high < 2**bits), None) if is_whole and high >= BRIGHT else None
    remarks.append(f"values up to {high:g} " + (f"taken as {bits} bits" if bits else "scaled to 0..255"))
    return 255 / (2**bits - 1 if bits else high), 0.0


def to_bytes(values: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """Return values as bytes, by the factor of `depth` and what is subtracted before."""
    return np.clip((values - shift) * scale, 0, 255).round().astype(np.uint8)
