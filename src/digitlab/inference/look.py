"""See what a picture shows as a network sees it: the digits that are found in it, or the whole of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from digitlab.data.pictures import measure, read_picture, read_pictures
from digitlab.inference.digits import find_digits
from digitlab.inference.model import TrackedModel

LONGEST = 640  # pixels: photographs are scaled down to it before digits are looked for


@dataclass(frozen=True)
class Seen:
    """What was found in one picture: images for the network, uint8 (N, ...), their boxes, and how many were left out.

    A box is left, top, right and bottom in pixels of the picture as it is shown; None is the whole of it.
    """

    images: np.ndarray
    boxes: Sequence[tuple[int, ...] | None]
    left_out: int = 0


def look(model: TrackedModel, file: Path | BinaryIO, many: bool = False) -> Seen:
    """Return what a picture holds for a model: its digits for one of MNIST's digits, else the whole picture.

    With `many`, it is all digits in reading order, else the one with the most ink. Raises OSError for what is no
    readable image, ValueError where nothing is seen.
    """
    if not model.is_framed_like_mnist:
        return _whole(model, file)
    picture = read_picture(file, LONGEST)
    digits = find_digits(picture)
    if not digits:
        raise ValueError("shows nothing that differs from its ground")
    chosen = digits if many else [max(digits, key=lambda each: each.ink)]
    pixels = torch.from_numpy(np.array([each.pixels for each in chosen]))
    scale = max(1.0, max(measure(file)) / max(picture.shape[:2]))
    boxes = [tuple(round(edge * scale) for edge in each.box) for each in chosen]
    return Seen(model.fit(pixels).numpy(), boxes, len(digits) - len(chosen))


def _whole(model: TrackedModel, file: Path | BinaryIO) -> Seen:
    """See the whole picture as `data=image_folder` would; on black where all of the model's are, if it is gray."""
    images = read_pictures([file], model.size, model.has_color).pixels.numpy()
    rim = np.concatenate([images[0, 0], images[0, -1], images[0, :, 0], images[0, :, -1]])
    if model.is_on_black and not model.has_color and np.median(rim) > 127:
        images = 255 - images
    return Seen(images, [None])
