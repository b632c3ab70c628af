"""Find written digits in a photograph, and frame each as MNIST's are: 20 x 20 in 28 x 28, centred by mass.

The frame is that of LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition (1998).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
from PIL import Image

ndimage: Any = scipy.ndimage  # whose own types are of too many kinds
SIDE, BOX = 28, 20  # pixels of MNIST's images, and of the digits in them
STROKES = (2.2, 4.5)  # pixels: how thin and how thick strokes are in MNIST, all but 5 % of them
GRID = 32  # cells along the longer side, in which the light on the ground is measured
FAINTEST = 12  # of 255: a difference from the ground that is no ink
FULLEST = 0.35  # the share of a picture that ink takes at most
FAINT = 0.3  # of a digit's ink: what is fainter is around it
BREAK = 0.08  # of a digit's height
EVERY_NEIGHBOUR = np.ones((3, 3), bool)


class Digit(NamedTuple):
    """A digit as a network of MNIST sees it, uint8 (28, 28); its box in the picture: left, top, right, bottom."""

    pixels: np.ndarray
    box: tuple[int, int, int, int]
    ink: float  # pixels of the picture


def find_digits(picture: np.ndarray) -> list[Digit]:
    """Return the digits in `picture`, uint8 (H, W, 3): line by line, each from left to right.

    Whatever differs from the ground, lighter or darker, is ink.
    """
    if (picture == picture[..., :1]).all():
        picture = picture[..., :1]
    ink = _ink(picture.astype(np.float32))
    if ink is None:
        return []
    labels, count = _label(_strokes(ink))
    groups = _in_reading_order(_joined(_parts(labels, count, ink)))
    return [_frame(ink, np.isin(labels, [each.label for each in group]), group) for group in groups]


class _Part(NamedTuple):
    """A connected stroke: its label, its box, and how much ink it has."""

    label: int
    left: int
    top: int
    right: int
    bottom: int
    weight: float

    @property
    def height(self) -> int:
        return self.bottom - self.top


def _ink(values: np.ndarray) -> np.ndarray | None:
    """Return how much ink covers each pixel, 0..1; None for a picture that shows nothing."""
    away = values - _ground(values)
    smooth = ndimage.gaussian_filter(away, (min(away.shape[:2]) / 200, min(away.shape[:2]) / 200, 0))
    strength = np.linalg.norm(smooth, axis=2)
    if not strength.max() > FAINTEST:
        return None
    strongest = strength >= max(np.quantile(strength, 0.98), 0.5 * strength.max())
    # Of light and dark, the one that more of what stands out has: the other is glare, or the edge of a shadow.
    is_lighter = smooth.sum(axis=2) > 0
    more = is_lighter if (strength * strongest * is_lighter).sum() > (strength * strongest).sum() / 2 else ~is_lighter
    color = away[strongest & more].mean(axis=0)
    return (away @ (color / (color @ color))).clip(0, 1)


def _ground(values: np.ndarray) -> np.ndarray:
    """Return the colour that each pixel would have without ink.

    Where the rim of the picture is evenly lit, and most of the picture is like it, that is a plane through the rim.
    Elsewhere it is a median of the wide neighbourhood, which follows shadows but takes a tightly cut digit for ground.
    """
    height, width, channels = values.shape
    scale = max(height, width) / GRID
    size = (max(round(width / scale), 1), max(round(height / scale), 1))
    cells = np.stack([_resize(values[..., each], size) for each in range(channels)], axis=2)
    rim = np.ones(cells.shape[:2], bool)
    rim[1:-1, 1:-1] = False
    y, x = np.mgrid[: cells.shape[0], : cells.shape[1]]
    plane = np.stack([np.ones_like(x), x, y], axis=2).astype(np.float32)
    ground = plane @ np.linalg.lstsq(plane[rim], cells[rim], rcond=None)[0]
    away = np.linalg.norm(cells - ground, axis=2)
    contrast = np.quantile(away, 0.98)
    if np.quantile(away[rim], 0.9) > contrast / 4 or (away > contrast / 2).mean() > FULLEST:
        wide = (GRID // 2 + 1, GRID // 2 + 1, 1)
        ground = ndimage.median_filter(cells, size=wide, mode="nearest")
    return np.stack([_resize(ground[..., each], (width, height)) for each in range(channels)], axis=2)


def _resize(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def _strokes(ink: np.ndarray) -> np.ndarray:
    """Return where there is a stroke, by Otsu's threshold (1979)."""
    counts, edges = np.histogram(ink, 64, (0, 1))
    middles = (edges[1:] + edges[:-1]) / 2
    below, mass = np.cumsum(counts), np.cumsum(counts * middles)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = np.nan_to_num(below * above * (mass / below - (mass[-1] - mass) / above) ** 2)
    return ink > middles[between.argmax()]


def _label(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the strokes, over gaps of BREAK of the tallest one's height: thin ink has some."""
    labels, _ = ndimage.label(mask, EVERY_NEIGHBOUR)
    tallest = max((y.stop - y.start for y, _ in ndimage.find_objects(labels)), default=0)
    closed = ndimage.distance_transform_edt(~mask) <= BREAK * tallest / 2
    labels, count = ndimage.label(closed, EVERY_NEIGHBOUR)
    return labels * mask, count


def _parts(labels: np.ndarray, count: int, ink: np.ndarray) -> list[_Part]:
    """Return the strokes that are no specks, and do not come in from the edge of the picture if others do not."""
    weights = ndimage.sum_labels(ink, labels, range(1, count + 1))
    boxes = ndimage.find_objects(labels)
    parts = [_Part(index + 1, x.start, y.start, x.stop, y.stop, weights[index]) for index, (y, x) in enumerate(boxes)]
    height, width = labels.shape
    inside = [each for each in parts if each.left and each.top and each.right < width and each.bottom < height]
    heaviest = max((each.weight for each in inside), default=0)
    kept = inside if heaviest > 0.1 * max((each.weight for each in parts), default=0) else parts
    heaviest = max((each.weight for each in kept), default=0)
    return [each for each in kept if each.weight >= 0.08 * heaviest]


def _joined(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Join the strokes of one digit, as the bar of a 5 that does not touch the rest."""
    groups: list[list[_Part]] = []
    for part in sorted(parts, key=lambda each: -each.height):
        own = next((group for group in groups if _belongs(part, group[0])), None)
        own.append(part) if own else groups.append([part])
    return groups


def _belongs(part: _Part, digit: _Part) -> bool:
    across = min(part.right, digit.right) - max(part.left, digit.left)
    down = min(part.bottom, digit.bottom) - max(part.top, digit.top)
    if across > 0 and down > 0:
        return across * down > 0.4 * (part.right - part.left) * part.height
    return max(-across, -down) < 0.25 * digit.height and part.height < 0.6 * digit.height


def _in_reading_order(groups: Sequence[list[_Part]]) -> list[list[_Part]]:
    """Sort digits, each with its tallest part first, into lines; leave out what is far smaller than the tallest."""
    tallest = max((group[0].height for group in groups), default=0)
    lines: list[list[list[_Part]]] = []
    for group in sorted(groups, key=lambda group: group[0].top):
        first = group[0]
        if max(first.height, first.right - first.left) < 0.3 * tallest:
            continue
        line = next((line for line in lines if any(_is_beside(first, other[0]) for other in line)), None)
        line.append(group) if line else lines.append([group])
    return [group for line in lines for group in sorted(line, key=lambda group: group[0].left)]


def _is_beside(one: _Part, other: _Part) -> bool:
    """Say whether two digits are in one line: by their height they share a part."""
    shared = min(one.bottom, other.bottom) - max(one.top, other.top)
    return shared > 0.3 * min(one.height, other.height)


def _frame(ink: np.ndarray, mask: np.ndarray, parts: Sequence[_Part]) -> Digit:
    """Cut a digit out, and scale and centre it as MNIST's were."""
    left, top = min(each.left for each in parts), min(each.top for each in parts)
    right, bottom = max(each.right for each in parts), max(each.bottom for each in parts)
    scale = BOX / max(right - left, bottom - top)
    margin = int(np.ceil(3 / scale)) + 2
    ys, xs = slice(top, bottom), slice(left, right)
    shape = np.pad(mask[ys, xs], margin)
    near = ndimage.binary_dilation(shape, EVERY_NEIGHBOUR, 2)
    cover = np.pad(ink, margin)[top : bottom + 2 * margin, left : right + 2 * margin] * near
    cover = (cover / max(np.quantile(cover[shape], 0.5), 1e-6)).clip(0, 1)
    inside = ndimage.distance_transform_edt(shape)
    width = (4 * inside[shape].mean() - 1) * scale
    wanted = float(np.clip(width, *STROKES))
    if wanted > width:
        cover = _thicken(cover, (wanted - width) / scale / 2)
    elif wanted < width:
        thinner = 1 - _thicken(1 - cover, (width - wanted) / scale / 2)
        cover = thinner if thinner.max() > FAINT else cover  # a blot has no width, and may be gone
    rows, columns = np.flatnonzero(cover.max(axis=1) > FAINT), np.flatnonzero(cover.max(axis=0) > FAINT)
    cover = cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(cover.shape)
    size = [max(round(length * scale), 1) for length in cover.shape[::-1]]
    small = _resize(cover, (size[0], size[1])).clip(0, 1)
    y, x = (float(small.sum(axis=1 - axis) @ np.arange(small.shape[axis]) / small.sum()) for axis in range(2))
    framed = np.zeros((SIDE, SIDE), np.float32)
    row = int(np.clip(round(SIDE / 2 - y), 0, SIDE - small.shape[0]))
    column = int(np.clip(round(SIDE / 2 - x), 0, SIDE - small.shape[1]))
    framed[row : row + small.shape[0], column : column + small.shape[1]] = small
    return Digit(
        (255 * framed).round().astype(np.uint8), (left, top, right, bottom), sum(each.weight for each in parts)
    )


def _thicken(cover: np.ndarray, by: float) -> np.ndarray:
    """Return strokes that are `by` pixels wider on each side."""
    radius = max(round(by), 1)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return ndimage.grey_dilation(cover, footprint=x**2 + y**2 <= (by + 0.5) ** 2)
