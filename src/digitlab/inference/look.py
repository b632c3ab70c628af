"""See what a picture shows as a network sees it: the digits that are found in it, or the whole of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from digitlab.data.ground import have_light_rims
from digitlab.data.picture_file import measure
from digitlab.data.pictures import read_picture, read_pictures
from digitlab.inference.digits import Digit, find_digits
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


class Picture:
    """An image file, in which digits are looked for once, however many models look at it."""

    def __init__(self, file: Path | BinaryIO):
        self.file = file

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height that the file says it has; OSError where it is no image."""
        return measure(self.file)

    @cached_property
    def _digits(self) -> tuple[list[Digit], float]:
        """The digits, and how many pixels of the picture one of the boxes' is."""
        pixels = read_picture(self.file, LONGEST)
        return find_digits(pixels), max(1.0, max(self.size) / max(pixels.shape[:2]))

    def see(self, model: TrackedModel, many: bool = False) -> Seen:
        """Return what is in it for a model: its digits for one of MNIST's digits, else the whole picture.

        With `many`, it is all digits in reading order, else the one with the most ink. Raises OSError for what is no
        readable image, ValueError where nothing is seen.
        """
        if not model.is_framed_like_mnist:
            return self._whole(model)
        digits, scale = self._digits
        if not digits:
            raise ValueError("shows nothing that differs from its ground")
        chosen = digits if many else [max(digits, key=lambda each: each.ink)]
        pixels = torch.from_numpy(np.array([each.pixels for each in chosen]))
        boxes = [tuple(round(edge * scale) for edge in each.box) for each in chosen]
        return Seen(model.fit(pixels).numpy(), boxes, len(digits) - len(chosen))

    def _whole(self, model: TrackedModel) -> Seen:
        """See all of it as the model's images were read; on black where all of them are, if it is gray."""
        images = read_pictures([self.file], model.shape, model.has_color, model.reading).pixels.numpy()
        if model.is_on_black and not model.has_color and have_light_rims(images)[0]:
            images = 255 - images
        return Seen(images, [None])
