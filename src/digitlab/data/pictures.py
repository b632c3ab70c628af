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
from torch import Tensor

LARGEST = 64  # pixels: the default size of larger images, which small networks on a CPU take time for
GRAY = 24  # of 255: what JPEG makes of gray differs less between the channels
DEPTHS = (8, 10, 12, 14, 16)  # bits that scanners, cameras and microscopes give
CONSTANT = 2  # of 255: values of an image that differ less show nothing


class Pictures(NamedTuple):
    """Pixels, uint8 (N, size, size) or in colour (N, size, size, 3), and what is to be said of them."""

    pixels: Tensor
    remarks: list[str]


class _Picture(NamedTuple):
    """One image: its pixels, uint8 (H, W, 3) or float32 (H, W) where a value has more than 8 bits."""

    pixels: np.ndarray
    on_black: np.ndarray | None  # where it has transparent pixels, which are white in `pixels`
    lowest: float
    highest: float
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
    if size is None:
        size = min(int(np.median([min(measure(file)) for file in files])), LARGEST)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # decoders release Python's lock
        read = list(pool.map(lambda file: _read(file, size), files))
    remarks: list[str] = []
    deep = [each for each in read if each.pixels.dtype == np.float32]
    scale, shift = _depth(deep, remarks)
    ground_is_black = _shows_on_black(read, remarks)
    pixels = []
    for each in read:
        if each.pixels.dtype == np.float32:
            gray = to_bytes(each.pixels, scale, shift)
            pixels.append(np.repeat(gray[..., None], 3, axis=2))
        else:
            pixels.append(each.on_black if ground_is_black and each.on_black is not None else each.pixels)
    whole = np.stack(pixels)
    coloured = int(np.sum(np.ptp(whole, axis=3).max(axis=(1, 2)) > GRAY))
    color = coloured > 0 if color is None else color
    gray_of = f", {coloured} turned gray" if coloured and not color else ""
    remarks.insert(0, f"{size} x {size}, {'in colour' if color else 'gray'}{gray_of}")
    for words, count in {
        "not square: stretched": sum(not each.is_square for each in read),
        "turned by their orientation tag": sum(each.is_turned for each in read),
        "with several frames: the first of each": sum(each.has_frames for each in read),
    }.items():
        if count:
            remarks.append(f"{count:,} {words}")
    return Pictures(torch.from_numpy(whole if color else to_gray(whole)), remarks)


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


@contextmanager
def _readable(file: Path | BinaryIO) -> Iterator[None]:
    """Turn whatever a decoder raises, each its own, into an OSError that names the file."""
    try:
        yield
    except Exception as error:
        if not isinstance(file, Path):
            raise OSError("is not a readable image") from error  # the rest tells of the object in memory
        if isinstance(error, OSError) and error.errno:
            raise OSError(f"{file} cannot be read: {error.strerror}") from error
        raise OSError(f"{file} is not a readable image: {error}") from error


def _read(file: Path | BinaryIO, size: int) -> _Picture:
    from PIL import Image, ImageOps

    with _readable(file), Image.open(file) as image:
        has_frames = getattr(image, "n_frames", 1) > 1
        is_turned = image.getexif().get(0x0112, 1) != 1
        is_square = image.width == image.height
        image = ImageOps.exif_transpose(image)
        if image.mode[0] in "IF":
            values = _finite(image)
            pixels = np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BILINEAR))
            return _Picture(pixels, None, values.min(), values.max(), is_square, is_turned, has_frames)
        on_black = None
        if image.has_transparency_data:
            image = image.convert("RGBA")
            on_black = _small(Image.alpha_composite(Image.new("RGBA", image.size, "black"), image), size)
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return _Picture(_small(image, size), on_black, 0, 255, is_square, is_turned, has_frames)


def _finite(image) -> np.ndarray:
    values = np.asarray(image, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are no numbers")
    return values


def _small(image, size: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def _depth(deep: Sequence[_Picture], remarks: list[str]) -> tuple[float, float]:
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


def _shows_on_black(read: Sequence[_Picture], remarks: list[str]) -> bool:
    """Say whether more of the transparent images show only on black than only on white."""
    grounds = [(each.pixels, each.on_black) for each in read if each.on_black is not None]
    if not grounds:
        return False
    shows = [(np.ptp(white) > CONSTANT, np.ptp(black) > CONSTANT) for white, black in grounds]
    is_black = shows.count((False, True)) > shows.count((True, False))
    remarks.append(f"{len(grounds):,} with transparent pixels, now {'black' if is_black else 'white'}")
    return is_black


def to_gray(pixels: np.ndarray) -> np.ndarray:
    """Turn RGB into luminance as Pillow does (ITU-R 601-2), which leaves gray pixels as they are."""
    return (pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32) + 0x8000 >> 16).astype(np.uint8)
