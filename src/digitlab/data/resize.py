"""Give stored images another size, or the other number of channels."""

import math

import psutil
import torch
from torch import Tensor

from digitlab.data.layout import as_stored, channels_first
from digitlab.data.on_disk import OnDisk, Stored
from digitlab.data.pictures import to_gray
from digitlab.data.sources import Images, StoredPairs


def resize(images: Images, size: int | None = None, color: bool | None = None) -> Images:
    """Return `images` as squares of `size` pixels, in colour or gray; None leaves either as it is.

    Raises ValueError for images on disk in another form: their source has to see to it.
    """

    def convert(pair: StoredPairs | None) -> StoredPairs | None:
        return pair and (_convert(pair[0], size, color), pair[1])

    parts = {part: convert(getattr(images, part)) for part in ("train", "test", "val")}
    return images._replace(**parts)


def _convert(pixels: Stored, size: int | None, color: bool | None) -> Stored:
    if isinstance(pixels, OnDisk):
        height, width, *channels = pixels.shape[1:]
        if size not in (None, height) or size not in (None, width) or color not in (None, bool(channels)):
            found = f"{width} x {height}, {'in colour' if channels else 'gray'}"
            raise ValueError(
                f"size={size}, color={color}: its source gave {found}, from a file; "
                "must take size and color, and hand them to image_folder"
            )
        return pixels
    return resize_pixels(recolor(pixels, color), (size, size) if size else None)


def recolor(pixels: Tensor, color: bool | None) -> Tensor:
    """Return uint8 pixels (N, H, W) or (N, H, W, 3) as the other of the two, where `color` asks for it."""
    if color is None or color == (pixels.ndim == 4):
        return pixels
    return pixels[..., None].expand(-1, -1, -1, 3).contiguous() if color else torch.from_numpy(to_gray(pixels.numpy()))


def resize_pixels(pixels: Tensor, shape: tuple[int, int] | None) -> Tensor:
    """Return uint8 pixels (N, H, W) or (N, H, W, 3) stretched to the height and the width of `shape`."""
    if shape is None or tuple(pixels.shape[1:3]) == shape:
        return pixels
    from torchvision.transforms.v2.functional import resize

    needed, there = len(pixels) * math.prod((*shape, *pixels.shape[3:])), psutil.virtual_memory().total
    if needed > there:
        raise ValueError(
            f"size={shape[0]}: {len(pixels):,} images take {needed / 1e9:,.0f} GB of memory then; "
            f"this machine has {there / 1e9:,.0f} GB"
        )
    return as_stored(resize(channels_first(pixels), list(shape), antialias=True), pixels)
