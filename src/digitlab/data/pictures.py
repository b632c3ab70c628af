"""Read image files of any kind as pixels of one kind, and say what was done to them."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch

from digitlab.data.on_disk import AT_ONCE, Stored

LARGEST = 64  # pixels: the default size of larger images, which small networks on a CPU take time for
GRAY = 24  # of 255: what JPEG makes of gray differs less between the channels
DEPTHS = (8, 10, 12, 14, 16)  # bits that scanners, cameras and microscopes give
CONSTANT = 2  # of 255: values of an image that differ less show nothing


class Pictures(NamedTuple):
    """Pixels, uint8 (N, size, size) or in colour (N, size, size, 3), and what is to be said of them."""

    pixels: Stored
    remarks: list[str]


class Seen(NamedTuple):
    """What is known of one image beside its pixels."""

    lowest: float
    highest: float
    is_deep: bool  # a value has more than 8 bits
    shows: tuple[bool, bool] | None  # on white, on black, where it has transparent pixels
    is_coloured: bool
    is_square: bool
    is_turned: bool
    has_frames: bool


def read_pictures(files: Sequence[Path | BinaryIO], size: int | None = None, color: bool | None = None) -> Pictures:
    """Read image files as squares of `size` pixels.

    - `size`: None takes the images' own, the median of their shorter sides, at most 64. Others are stretched.
    - `color`: None keeps the colours where any image has some.

    Orientation tags are followed. Values of more than 8 bits are scaled by the bits that the largest of all needs.
    Transparent pixels become white, or black where most shapes show only so. Raises OSError for a file that cannot be
    read.
    """
    size = size or usual_size(files)
    whole, seen = np.empty((len(files), size, size, 3), np.uint8), []
    for pixels, some in decode(files, size):
        whole[len(seen) : len(seen) + len(some)] = pixels
        seen += some
    color, remarks = settle(files, whole, seen, color)
    return Pictures(torch.from_numpy(whole if color else to_gray(whole)), remarks)


def usual_size(files: Sequence[Path | BinaryIO]) -> int:
    """Return the size that images are read in by default."""
    return min(int(np.median([min(measure(file)) for file in files])), LARGEST)


def decode(files: Sequence[Path | BinaryIO], size: int) -> Iterator[tuple[np.ndarray, list[Seen]]]:
    """Yield images some at a time, uint8 (n, size, size, 3): transparent ones on white, deep ones not yet."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # decoders release Python's lock
        for start in range(0, len(files), AT_ONCE):
            read = list(pool.map(lambda file: _read(file, size), files[start : start + AT_ONCE]))
            blank = np.zeros((size, size, 3), np.uint8)
            pixels = [blank if each.seen.is_deep else each.pixels for each in read]
            yield np.stack(pixels), [each.seen for each in read]


def settle(
    files: Sequence[Path | BinaryIO], whole: np.ndarray, seen: Sequence[Seen], color: bool | None
) -> tuple[bool, list[str]]:
    """Read again, into `whole`, what depends on all images; return whether they have colour, and what is to be said."""
    remarks: list[str] = []
    size, seen = whole.shape[1], list(seen)
    scale = _depth([each for each in seen if each.is_deep], remarks)
    on_black = _shows_on_black(seen, remarks)
    for row, each in enumerate(seen):
        if each.is_deep or (each.shows and on_black):
            again = _read(files[row], size)
            if each.is_deep:
                whole[row] = to_bytes(again.pixels, *scale)[..., None]
            elif again.on_black is not None:
                whole[row] = again.on_black
            seen[row] = each._replace(is_coloured=_is_coloured(whole[row]))
    coloured = sum(each.is_coloured for each in seen)
    color = coloured > 0 if color is None else color
    gray_of = f", {coloured} turned gray" if coloured and not color else ""
    remarks.insert(0, f"{size} x {size}, {'in colour' if color else 'gray'}{gray_of}")
    for words, count in {
        "not square: stretched": sum(not each.is_square for each in seen),
        "turned by their orientation tag": sum(each.is_turned for each in seen),
        "with several frames: the first of each": sum(each.has_frames for each in seen),
    }.items():
        if count:
            remarks.append(f"{count:,} {words}")
    return color, remarks


def read_picture(file: Path | BinaryIO, longest: int) -> np.ndarray:
    """Read one image file in its own shape, scaled down to `longest` pixels: uint8 (H, W, 3).

    Orientation tags are followed, values of more than 8 bits scaled as in `read_pictures`. Transparent pixels become
    white, or black where the shape shows only so. Raises OSError for a file that cannot be read.
    """
    from PIL import Image, ImageOps

    with _readable(file), Image.open(file) as image:
        image.draft(None, (longest, longest))  # JPEG decodes to a half, a fourth or an eighth at once
        image = ImageOps.exif_transpose(image)
        if image.mode[0] in "IF":
            values = _finite(image)
            image = Image.fromarray(to_bytes(values, *depth(values.min(), values.max(), [])))
        if not image.has_transparency_data:
            return _within(image, longest)
        image = image.convert("RGBA")
        white, black = (
            _within(Image.alpha_composite(Image.new("RGBA", image.size, each), image), longest)
            for each in ("white", "black")
        )
        return white if np.ptp(white) > CONSTANT else black


def _within(image, longest: int) -> np.ndarray:
    """Return an image as RGB, scaled down to `longest` pixels where it is larger."""
    from PIL import Image

    image = image.convert("RGB")
    image.thumbnail((longest, longest), Image.Resampling.BOX, reducing_gap=2)
    return np.asarray(image)


@cache
def extensions() -> tuple[str, ...]:
    """Return the extensions of the files that Pillow can read, not only recognize."""
    from PIL import Image, ImageFile

    Image.init()
    stub = ImageFile.StubImageFile  # it only recognizes its format, as MPEG's reader does
    stubs = {name for name, (opener, _) in Image.OPEN.items() if stub in getattr(opener, "__mro__", ())}
    readable = Image.OPEN.keys() - stubs - {"MPEG"}
    return tuple(sorted(each for each, name in Image.registered_extensions().items() if name in readable))


def measure(file: Path | BinaryIO) -> tuple[int, int]:
    """Return the width and the height that an image file says it has; OSError for what is none."""
    from PIL import Image

    with _readable(file), Image.open(file) as image:
        return image.size


class TooLargeError(OSError):
    """A picture has more pixels than Pillow decodes."""


@contextmanager
def _readable(file: Path | BinaryIO) -> Iterator[None]:
    """Turn whatever a decoder raises, each its own, into an OSError that names the file."""
    from PIL import Image

    try:
        yield
    except Exception as error:
        if isinstance(error, Image.DecompressionBombError):
            raise TooLargeError(f"{file} is not a readable image: {error}") from error
        if not isinstance(file, Path):
            raise OSError("is not a readable image") from error  # the rest tells of the object in memory
        if isinstance(error, OSError) and error.errno:
            raise OSError(f"{file} cannot be read: {error.strerror}") from error
        raise OSError(f"{file} is not a readable image: {error}") from error


class _Read(NamedTuple):
    pixels: np.ndarray  # uint8 (size, size, 3), or float32 (size, size) of a deep image
    on_black: np.ndarray | None  # where it has transparent pixels, which are white in `pixels`
    seen: Seen


def _read(file: Path | BinaryIO, size: int) -> _Read:
    from PIL import Image, ImageOps

    with _readable(file), Image.open(file) as image:
        has_frames = getattr(image, "n_frames", 1) > 1
        is_turned = image.getexif().get(0x0112, 1) != 1
        rest = (image.width == image.height, is_turned, has_frames)
        image = ImageOps.exif_transpose(image)
        if image.mode[0] in "IF":
            values = _finite(image)
            pixels = np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BILINEAR))
            return _Read(pixels, None, Seen(float(values.min()), float(values.max()), True, None, False, *rest))
        on_black = shows = None
        if image.has_transparency_data:
            image = image.convert("RGBA")
            on_black = _small(Image.alpha_composite(Image.new("RGBA", image.size, "black"), image), size)
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        pixels = _small(image, size)
        if on_black is not None:
            shows = bool(np.ptp(pixels) > CONSTANT), bool(np.ptp(on_black) > CONSTANT)
        return _Read(pixels, on_black, Seen(0, 255, False, shows, _is_coloured(pixels), *rest))


def _is_coloured(pixels: np.ndarray) -> bool:
    return bool(np.ptp(pixels, axis=2).max() > GRAY)


def _finite(image) -> np.ndarray:
    values = np.asarray(image, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are no numbers")
    return values


def _small(image, size: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def _depth(deep: Sequence[Seen], remarks: list[str]) -> tuple[float, float]:
    """Return the factor that makes 0..255 of the values of all `deep` images, and what is subtracted before."""
    if not deep:
        return 1.0, 0.0
    return depth(min(each.lowest for each in deep), max(each.highest for each in deep), remarks)


def depth(low: float, high: float, remarks: list[str]) -> tuple[float, float]:
    """Return the factor that makes 0..255 of values from `low` to `high`, and what is subtracted before."""
    if low < 0:
        remarks.append(f"values from {low:g} to {high:g} scaled to 0..255")
        return 255 / max(high - low, 1e-30), low
    if high <= 1:
        remarks.append("values in 0..1 scaled to 0..255")
        return 255.0, 0.0
    bits = next((bits for bits in DEPTHS if high < 2**bits), None)
    remarks.append(f"values up to {high:g} " + (f"taken as {bits} bits" if bits else "scaled to 0..255"))
    return 255 / (2**bits - 1 if bits else high), 0.0


def to_bytes(values: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """Return values as bytes, by the factor of `depth` and what is subtracted before."""
    return np.clip((values - shift) * scale, 0, 255).round().astype(np.uint8)


def _shows_on_black(seen: Sequence[Seen], remarks: list[str]) -> bool:
    """Say whether more of the transparent images show only on black than only on white."""
    shows = [each.shows for each in seen if each.shows]
    if not shows:
        return False
    is_black = shows.count((False, True)) > shows.count((True, False))
    remarks.append(f"{len(shows):,} with transparent pixels, now {'black' if is_black else 'white'}")
    return is_black


def to_gray(pixels: np.ndarray) -> np.ndarray:
    """Turn RGB into luminance as Pillow does (ITU-R 601-2), which leaves gray pixels as they are."""
    gray = np.empty(pixels.shape[:-1], np.uint8)
    for start in range(0, len(pixels), AT_ONCE):  # as integers of 32 bits they take four times the memory
        some = pixels[start : start + AT_ONCE].astype(np.uint32)
        gray[start : start + AT_ONCE] = some @ np.array([19595, 38470, 7471], np.uint32) + 0x8000 >> 16
    return gray
