"""Serve one data set as batches that live on the training device."""

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import pytorch_lightning as pl
import torch

from digitlab import REPOSITORY
from digitlab.data.batches import Batches, Blocks, EpochOrder, Gather
from digitlab.data.sources import Images, Pairs, UnavailableError
from digitlab.data.splits import split_images

# By device: images evaluated at once, where a CPU's cache is small, and optimizer steps that Lightning sees as one.
EVALUATION_BATCH = {"cpu": 128, "cuda": 2000}
BLOCK = {"cpu": 16, "cuda": 128}


class ImageData(pl.LightningDataModule):
    """Split a source's images into training, validation and test, and serve them as (images, labels) batches.

    Batches are float32 (B, 1, H, W), in [0, 1] when `normalize` else in [0, 255], and int64 (B,). Those for training
    come in blocks of `block` (None: as the device likes it), which changes no number.
    `split` says where validation comes from: the "last" images (Keras's validation_split), a "stratified" draw, or the
    "test" set itself, as some tutorials do it; "auto" takes the last ones unless they are sorted by class or there is
    no test set, then it draws. Fractions count from the images that the source gives for training, after the first
    `skip_first` are left out. `fallback` is a source to take where the first one is unavailable. `split_seed` draws
    the split, `seed` the order of each epoch. `augment` moves each training image by up to `shift` pixels and turns it
    by up to `rotate` degrees.
    """

    def __init__(
        self,
        source: Callable[..., Images],
        root: str | None = None,
        fallback: Callable[[], Images] | bool | None = None,
        batch_size: int = 128,
        block: int | None = None,
        split: str = "auto",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        skip_first: int = 0,
        split_seed: int = 0,
        seed: int = 0,
        normalize: bool = True,
        augment: Mapping[str, float] | None = None,
    ):
        super().__init__()
        self.source, self.root, self.fallback = source, root, fallback
        self.batch_size, self.block, self.seed, self.normalize = batch_size, block, seed, normalize
        self.split, self.val_fraction, self.test_fraction = split, val_fraction, test_fraction
        self.skip_first, self.split_seed = skip_first, split_seed
        self.augment = dict(augment or {})
        self.splits: dict[str, Pairs] = {}

    def setup(self, stage: str | None = None) -> None:
        """Load and split the images, once; raise OSError or ValueError for what cannot be had or split."""
        if self.splits:
            return
        images = self._load()
        self.name, self.classes = images.name, images.classes
        self.splits = split_images(
            images, self.split, self.val_fraction, self.test_fraction, self.skip_first, self.split_seed
        )
        self.input_shape = (1, *self.splits["train"][0].shape[1:])

    def share(self, other: "ImageData") -> None:
        """Take the images that `other` has loaded and split in the same way, instead of loading them again."""
        self.name, self.classes, self.input_shape = other.name, other.classes, other.input_shape
        self.splits, self.digest = other.splits, other.digest

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def sizes(self) -> dict[str, int]:
        return {stage: len(labels) for stage, (_, labels) in self.splits.items()}

    @cached_property
    def digest(self) -> str:
        """Hash every image and label of every split in order: the same digest is the same data, wherever it lies."""
        content = hashlib.sha256()
        for stage, pair in self.splits.items():
            for tensor in pair:
                content.update(f"{stage}{tuple(tensor.shape)}".encode())
                content.update(tensor.contiguous().numpy().data)
        return content.hexdigest()[:32]

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.sizes["train"] / self.batch_size)

    def train_dataloader(self) -> "Blocks":
        images, labels = self._on_device("train")
        block = self.block or BLOCK.get(images.device.type, BLOCK["cpu"])
        order = EpochOrder(len(labels), self.seed)
        return Blocks(Gather(images, labels, self.normalize, self.augment), order, self.batch_size, block)

    def val_dataloader(self) -> "Batches":
        return self._evaluation("val")

    def test_dataloader(self) -> "Batches":
        return self._evaluation("test")

    def _evaluation(self, stage: str) -> "Batches":
        images, labels = self._on_device(stage)
        size = EVALUATION_BATCH.get(images.device.type, EVALUATION_BATCH["cpu"])
        return Batches(Gather(images, labels, self.normalize), size)

    def _load(self) -> Images:
        root = Path(self.root).expanduser() if self.root else REPOSITORY / "data"
        try:
            return self.source(root=root)
        except UnavailableError as error:
            if not self.fallback:
                raise
            images = self.fallback()
            warnings.warn(f"{error}. Taking the embedded {images.name} in its place", stacklevel=2)
            return images

    def _on_device(self, stage: str) -> Pairs:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        images, labels = self.splits[stage]
        return images.to(device), labels.to(device)
