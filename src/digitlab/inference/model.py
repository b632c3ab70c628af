"""The model that a run logged, ready to predict on the CPU."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from digitlab.config.errors import UserError, user_errors
from digitlab.data.ground import is_on_black
from digitlab.data.reading import Reading
from digitlab.data.resize import recolor, resize_pixels
from digitlab.inference.digits import BOX, SIDE
from digitlab.models.predictor import check_numbers
from digitlab.tracking import queries, references
from digitlab.tracking.flavor import load_model
from digitlab.tracking.store import Store

BATCH = 128  # images


@dataclass(frozen=True)
class TrackedModel:
    """The model of a run: `module` maps uint8 images to probabilities (N, C); `examples` are of its test images."""

    run_id: str
    name: str
    module: nn.Module
    classes: tuple[str, ...]
    examples: np.ndarray
    data_digest: str  # its first characters, of the data that the run was trained and tested on
    is_on_black: bool  # its training images, what they show
    reading: Reading  # how they were read

    @property
    def file_name(self) -> str:
        """The name of the run as one of a file."""
        return re.sub(r"[^\w.=-]+", "_", self.name).strip("._")[:100] or self.run_id

    @property
    def shape(self) -> tuple[int, int]:
        """The height and the width of its images."""
        height, width = self.examples.shape[1:3]
        return height, width

    @property
    def has_color(self) -> bool:
        return self.examples.ndim == 4

    def predict(self, images: Tensor) -> np.ndarray:
        """Return the probabilities (N, C) of uint8 images of the model's own size."""
        with torch.inference_mode():
            parts = [self.module(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
        return torch.cat(parts).numpy() if parts else np.empty((0, len(self.classes)), np.float32)

    def fit(self, pixels: Tensor) -> Tensor:
        """Give uint8 images (N, H, W) or (N, H, W, 3) the size and the channels of the model's."""
        return resize_pixels(recolor(pixels, self.has_color), self.shape)

    @cached_property
    def is_framed_like_mnist(self) -> bool:
        """Say whether its images are as MNIST's: what they show is 20 of 28 pixels long and centred by mass on black.

        All 10,000 test images of MNIST do, and none of Fashion-MNIST's.
        """
        height, width = self.shape
        return height == width and all(_is_framed(image * (SIDE / height), where) for image, where in self._lit())

    def _lit(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows and columns of each example's lit pixels, (2, N), and their share of its light, (N,)."""
        for example in self.examples:
            gray = example if example.ndim == 2 else example.max(axis=2)
            where = np.array(np.nonzero(gray), float)
            yield where + 0.5, gray[gray > 0] / max(gray.sum(dtype=float), 1)


def _is_framed(places: np.ndarray, light: np.ndarray) -> bool:
    if not light.size:
        return False
    sides = np.ptp(places, axis=1)
    return abs(sides.max() + 1 - BOX) <= 1.5 and bool((abs(places @ light - SIDE / 2) < 1.5).all())


def tracked_model(store: Store, reference: str) -> TrackedModel:
    """Load the model of the run that `reference` names; OSError where it is damaged.

    Raises UserError where there is none, or none that can be used.
    """
    with user_errors("run"):
        run = references.resolve(store, reference)
    uri = queries.model_uri(store, run.info.run_id)
    name = str(run.info.run_name)
    if uri is None:
        reason = run.data.tags.get("without_model") or "a run has one when it has been tested"
        raise UserError(f"run: {name} (run {run.info.run_id[:8]}) has no logged model: {reason}")
    with store.translate_errors():
        module, examples, metadata = load_model(uri, store.uri)
    digest = next((each.dataset.digest for each in (run.inputs.dataset_inputs if run.inputs else ())), "none")
    classes = tuple(metadata["classes"])
    on_black = metadata["on_black"] if "on_black" in metadata else is_on_black(torch.from_numpy(examples))
    reading = Reading.kept(metadata["reading"]) if "reading" in metadata else Reading()
    model = TrackedModel(run.info.run_id, name, module, classes, examples, digest, on_black, reading)
    with user_errors(f"run: the logged model of {model.run_id[:8]}"):
        check_numbers(module, torch.from_numpy(examples))
        if not np.isfinite(model.predict(torch.from_numpy(examples))).all():
            raise ValueError("gives no probabilities, for the run diverged")
    return model
