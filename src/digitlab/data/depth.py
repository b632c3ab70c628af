"""Make bytes of pixel values of other kinds."""

from collections.abc import Iterable, Sequence
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

    @property
    def is_of_fractions(self) -> bool:
        return not self.is_whole and self.low >= 0 and self.high <= 1

    def goes_with(self, other: "Range") -> bool:
        """Say whether one scale can be for both: fractions in 0..1 and larger whole numbers have none in common."""
        pairs = ((self, other), (other, self))
        return not any(one.is_of_fractions and two.is_whole and two.high > 1 for one, two in pairs)


class Scale(NamedTuple):
    """What makes 0..255 of values: subtract `shift`, then multiply by `factor`; `words` say so."""

    factor: float
    shift: float
    words: str

    def to_bytes(self, values: np.ndarray) -> np.ndarray:
        return np.clip((values - self.shift) * self.factor, 0, 255).round().astype(np.uint8)


def scale(values: Range) -> Scale:
    """Return the scale of values.

    Values from 0 to 1 are shares of white. Whole numbers of which one is BRIGHT are of as many bits as the largest
    needs. Of all others the largest is white, and where some are negative the lowest is black.
    """
    low, high, is_whole = values
    if low < 0:
        return Scale(255 / max(high - low, 1e-30), low, f"values from {low:g} to {high:g} scaled to 0..255")
    if high <= 1:
        return Scale(255.0, 0.0, "values in 0..1 scaled to 0..255")
    bits = next((bits for bits in DEPTHS if high < 2**bits), None) if is_whole and high >= BRIGHT else None
    words = f"values up to {high:g} " + (f"taken as {bits} bits" if bits else "scaled to 0..255")
    return Scale(255 / (2**bits - 1 if bits else high), 0.0, words)


def together(ranges: Sequence[Range]) -> tuple[Range, ...]:
    """Return the range of all images of a set, or, where they have no scale in common, of fractions and of the rest."""
    parts = [[each for each in ranges if each.is_of_fractions is kind] for kind in (True, False)]
    fractions, rest = (Range.around(part) if part else None for part in parts)
    if fractions and rest and fractions.goes_with(rest):
        return (Range.around((fractions, rest)),)
    return tuple(each for each in (fractions, rest) if each)
