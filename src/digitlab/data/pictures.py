"""Read image files of any kind as pixels of one kind, and say what was done to them."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch

from digitlab.data import depth
from digitlab.data.depth import Range
from digitlab.data.on_disk import Stored, at_once
from digitlab.data.picture_file import measure, opened
from digitlab.data.reading import Reading

LARGEST = 64  # pixels: the default size of larger images, which small networks on a CPU take time for
CONSTANT = 2  # of 255: values of an image that differ less show nothing

Shape = tuple[int, int]  # height and width


class Pictures(NamedTuple):
    """Pixels, uint8 (N, H, W) or in colour (N, H, W, 3), what is to be said of them, and how they were read."""

    pixels: Stored
    remarks: list[str]
    reading: Reading


class Seen(NamedTuple):
    """What is known of one image beside its pixels, each a plain value: a file holds them."""

    lowest: float
    highest: float
    is_whole: bool
    is_deep: bool  # a value has more than 8 bits; the three above are of it
    is_transparent: bool
    shows_on_white: bool  # the two of a transparent one
    shows_on_black: bool
    is_coloured: bool
    is_faint: bool  # it has colour that may be JPEG's
    is_square: bool
    is_cut: bool
    is_turned: bool
    has_frames: bool

    @property
    def values(self) -> Range:
        return Range(self.lowest, self.highest, self.is_whole)


def read_pictures(
    files: Sequence[Path | BinaryIO],
    shape: Shape | None = None,
    color: bool | None = None,
    reading: Reading | None = None,
) -> Pictures:
    """Read image files as images of one height and width.

    - `shape`: None takes squares of the images' own size, the median of their shorter sides, at most 64. Others are
      stretched.
    - `color`: None keeps the colours where any image has some.
    - `reading`: how other images were read that these are to be like.

    Orientation tags are followed. Values of more than 8 bits are scaled as `depth.scale` says, all images alike.
    Transparent pixels become white, or black where most shapes show only so; where a shape shows only on the other
    ground, it has that. Raises OSError for a file that cannot be read.
    """
    height, width = shape or (usual_size(files),) * 2
    whole, seen = np.empty((len(files), height, width, 3), np.uint8), []
    for pixels, some in decode(files, (height, width)):
        whole[len(seen) : len(seen) + len(some)] = pixels
        seen += some
    has_color, remarks, reading = settle(files, whole, seen, color, reading)
    return Pictures(torch.from_numpy(whole if has_color else to_gray(whole)), remarks, reading)


def usual_size(files: Sequence[Path | BinaryIO]) -> int:
    """Return the size that images are read in by default."""
    return min(int(np.median([min(measure(file)) for file in files])), LARGEST)


def decode(files: Sequence[Path | BinaryIO], shape: Shape) -> Iterator[tuple[np.ndarray, list[Seen]]]:
    """Yield images some at a time, uint8 (n, H, W, 3): transparent ones on white, deep ones not yet."""
    blank = np.zeros((*shape, 3), np.uint8)
    step = at_once(blank.shape)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # decoders release Python's lock
        for start in range(0, len(files), step):
            read = list(pool.map(lambda file: _read(file, shape), files[start : start + step]))
            pixels = [blank if each.seen.is_deep else each.pixels for each in read]
            yield np.stack(pixels), [each.seen for each in read]


def settle(
    files: Sequence[Path | BinaryIO],
    whole: np.ndarray,
    seen: Sequence[Seen],
    color: bool | None,
    reading: Reading | None,
) -> tuple[bool, list[str], Reading]:
    """Read again, into `whole`, what depends on all images.

    Return whether they have colour, what is to be said, and how they were read: by `reading`, as far as it says.
    """
    height, width = whole.shape[1:3]
    ranges = [each.values for each in seen if each.is_deep]
    shows = [(each.shows_on_white, each.shows_on_black) for each in seen if each.is_transparent]
    reading = Reading.of(ranges, shows).under(reading)
    remarks = list(dict.fromkeys(reading.scale(each).words for each in depth.together(ranges)))
    if shows:
        remarks.append(f"{len(shows):,} with transparent pixels, now {'black' if reading.on_black else 'white'}")
        others = [pair for pair in shows if reading.is_on_black(*pair) != reading.on_black and any(pair)]
        remarks[-1] += f", of {len(others):,} the other, on which alone they show" if others else ""
    for row, each in enumerate(seen):
        if each.is_deep:
            whole[row] = reading.scale(each.values).to_bytes(_read(files[row], (height, width)).pixels)[..., None]
        elif each.is_transparent and reading.is_on_black(each.shows_on_white, each.shows_on_black):
            whole[row] = _read(files[row], (height, width)).on_black
    coloured, faint = sum(each.is_coloured for each in seen), sum(each.is_faint for each in seen)
    has_color = coloured > 0 if color is None else color
    form = f"{width} x {height}, {'in colour' if has_color else 'gray'}"
    if coloured and not has_color:
        form += f", {coloured:,} turned gray"
    elif faint and color is None and not has_color:
        form += f", {faint:,} with faint colours, which data.color=true keeps"
    remarks.insert(0, form)
    for words, count in {
        "not square: stretched": sum(not each.is_square for each in seen),
        "of 16 bits a colour: the upper 8 of each": sum(each.is_cut for each in seen),
        "turned by their orientation tag": sum(each.is_turned for each in seen),
        "with several frames: the first of each": sum(each.has_frames for each in seen),
    }.items():
        if count:
            remarks.append(f"{count:,} {words}")
    return has_color, remarks, reading


def read_picture(file: Path | BinaryIO, longest: int) -> np.ndarray:
    """Read one image file in its own shape, scaled down to `longest` pixels: uint8 (H, W, 3).

    What it holds is read as `read_pictures` does. Raises OSError for a file that cannot be read.
    """
    from PIL import Image

    with opened(file, longest) as found:
        if found.depth:
            values = depth.scale(found.depth).to_bytes(np.asarray(found.image))
            return _within(Image.fromarray(values).convert("RGB"), longest)
        white = _within(found.on("white"), longest)
        if not found.is_transparent:
            return white
        black = _within(found.on("black"), longest)
        return black if Reading().is_on_black(_shows(white), _shows(black)) else white


def _within(image, longest: int) -> np.ndarray:
    """Return an image scaled down to `longest` pixels where it is larger."""
    from PIL import Image

    image = image.copy()
    image.thumbnail((longest, longest), Image.Resampling.BOX, reducing_gap=2)
    return np.asarray(image)


class _Read(NamedTuple):
    pixels: np.ndarray  # uint8 (H, W, 3), or float32 (H, W) of a deep image
    on_black: np.ndarray | None  # where it has transparent pixels, which are white in `pixels`
    seen: Seen


def _read(file: Path | BinaryIO, shape: Shape) -> _Read:
    with opened(file) as found:
        rest = found.image.width == found.image.height, found.is_cut, found.is_turned, found.has_frames
        if found.depth:
            seen = Seen(*found.depth, True, False, False, False, False, False, *rest)
            return _Read(_stretched(found.image, shape), None, seen)
        white, on_black, shows = found.on("white"), None, (False, False)
        pixels = _stretched(white, shape)
        if found.is_transparent:
            on_black = _stretched(found.on("black"), shape)
            shows = _shows(pixels), _shows(on_black)
        colours = found.has_colours(white)
        seen = Seen(0, 255, True, False, found.is_transparent, *shows, *colours, *rest)
        return _Read(pixels, on_black, seen)


def _stretched(image, shape: Shape) -> np.ndarray:
    from PIL import Image

    return np.asarray(image.resize(shape[::-1], Image.Resampling.BILINEAR))


def _shows(pixels: np.ndarray) -> bool:
    return bool(np.ptp(pixels) > CONSTANT)


def to_gray(pixels: np.ndarray) -> np.ndarray:
    """Turn RGB into luminance as Pillow does (ITU-R 601-2), which leaves gray pixels as they are."""
    gray = np.empty(pixels.shape[:-1], np.uint8)
    step = at_once(pixels.shape[1:])
    for start in range(0, len(pixels), step):  # as integers of 32 bits they take four times the memory
        some = pixels[start : start + step].astype(np.uint32)
        gray[start : start + step] = some @ np.array([19595, 38470, 7471], np.uint32) + 0x8000 >> 16
    return gray
