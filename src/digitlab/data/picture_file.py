"""Open one image file, of any kind that Pillow reads."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from digitlab.data.depth import Range

# Pillow's, of files that it reads all the same: they name none. What it cannot read it raises.
warnings.filterwarnings("ignore", module=r"PIL\.")
ORIENTATION = 0x0112  # the tag of Exif
TURNED = range(2, 9)  # its values that turn or mirror an image
LOSSY = {"JPEG", "MPO", "JPEG2000", "WEBP", "AVIF"}
NEUTRAL, FAINT = 2, 24  # of 255: what gray differs by between the channels; what it may differ by in a lossy file


class Opened(NamedTuple):
    """An image file in its own shape, turned as a viewer shows it."""

    image: Any  # of Pillow: RGBA where it has transparent pixels, else RGB; of one channel where it is deep
    depth: Range | None  # of its values, where they have more than 8 bits
    is_transparent: bool
    is_cut: bool  # of 16 bits a channel, of which the upper 8 are read
    is_turned: bool
    has_frames: bool
    is_lossy: bool

    def has_colours(self, shown: Any) -> tuple[bool, bool]:
        """Say whether the image has colours as it is `shown`, in RGB, and whether it has such as a codec may make."""
        from PIL import ImageChops

        red, green, blue = shown.split()
        pairs = ((red, green), (green, blue), (red, blue))
        apart = max(int(np.asarray(ImageChops.difference(*pair)).max()) for pair in pairs)
        is_faint = self.is_lossy and NEUTRAL < apart <= FAINT
        return apart > NEUTRAL and not is_faint, is_faint

    def on(self, ground: str) -> Any:
        """Return the image in RGB, with a ground of that colour where it is transparent."""
        from PIL import Image

        if not self.is_transparent:
            return self.image
        return Image.alpha_composite(Image.new("RGBA", self.image.size, ground), self.image).convert("RGB")


@contextmanager
def opened(file: Path | BinaryIO, longest: int | None = None) -> Iterator[Opened]:
    """Open an image file; JPEG comes scaled by a half, a fourth or an eighth if `longest` pixels are enough.

    Whatever a decoder raises meanwhile, each its own, becomes an OSError that names the file.
    """
    from PIL import Image, ImageOps

    with _readable(file), Image.open(file) as image:
        if longest:
            image.draft(None, (longest, longest))
        is_cut = any(";16" in str(each.args) for each in image.tile)  # which has no tiles once it is loaded
        is_lossy = image.format in LOSSY
        is_turned = image.getexif().get(ORIENTATION) in TURNED
        has_frames = getattr(image, "n_frames", 1) > 1
        if image.mode == "I;16" and (np.asarray(image) == image.info.get("transparency", -1)).any():
            image = _upper_bits(image)
        is_deep = image.mode[0] in "IF"
        is_cut = is_cut and not is_deep
        image = ImageOps.exif_transpose(image)
        values = None
        if is_deep:
            values = np.asarray(image, np.float32)
            image = Image.fromarray(values)
        is_transparent = not is_deep and image.has_transparency_data
        if is_transparent:
            image = image.convert("RGBA")
            is_transparent = int(np.asarray(image)[..., 3].min()) < 255
        if not is_deep and not is_transparent:
            image = image.convert("RGB")
        depth = None if values is None else Range.of(values)
        yield Opened(image, depth, is_transparent, is_cut, is_turned, has_frames, is_lossy)


def _upper_bits(image: Any) -> Any:
    """Return an image of 16-bit gray with 8 bits, transparent where it has the value that says so."""
    from PIL import Image

    values = np.asarray(image)
    made = Image.fromarray(
        np.stack([values >> 8, (values != image.info["transparency"]) * 255], axis=-1).astype(np.uint8), "LA"
    )
    made.info["exif"] = image.info.get("exif", b"")
    return made


def measure(file: Path | BinaryIO) -> tuple[int, int]:
    """Return the width and the height that an image file says it has; OSError for what is none."""
    from PIL import Image

    with _readable(file), Image.open(file) as image:
        return image.size


@cache
def extensions() -> tuple[str, ...]:
    """Return the extensions of the files that Pillow can read, not only recognize."""
    from PIL import EpsImagePlugin, Image, ImageFile

    Image.init()
    stub = ImageFile.StubImageFile  # it only recognizes its format, as MPEG's reader does
    unread = {name for name, (opener, _) in Image.OPEN.items() if stub in getattr(opener, "__mro__", ())} | {"MPEG"}
    if not EpsImagePlugin.has_ghostscript():  # a program that reads them for Pillow
        unread.add("EPS")
    readable = Image.OPEN.keys() - unread
    return tuple(sorted(each for each, name in Image.registered_extensions().items() if name in readable))


class TooLargeError(OSError):
    """A picture has more pixels than Pillow decodes."""


@contextmanager
def _readable(file: Path | BinaryIO) -> Iterator[None]:
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
