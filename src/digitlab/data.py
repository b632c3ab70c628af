"""Serve one data set as batches that live on the training device, in an order made from (seed, epoch)."""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from digitlab import REPOSITORY
from digitlab.sources import Images, UnavailableError

# By device: images evaluated at once, where a CPU's cache is small, and optimizer steps that Lightning sees as one.
EVALUATION_BATCH = {"cpu": 128, "cuda": 2000}
BLOCK = {"cpu": 16, "cuda": 128}
SPLITS = ("auto", "last", "stratified", "test")

Pairs = tuple[Tensor, Tensor]


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
        self.splits = _split(
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


class EpochOrder:
    """Give each epoch an order of its own, a function of (seed, epoch) alone; epochs follow one another unless set."""

    def __init__(self, length: int, seed: int):
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Continue with `epoch`. Lightning calls this before each epoch."""
        self.epoch = epoch

    def draw(self) -> Tensor:
        """Return the next epoch's permutation, int64 (length,)."""
        words = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)
        self.epoch += 1
        return torch.randperm(self.length, generator=torch.Generator().manual_seed(int(words[0] >> 1)))


class Gather:
    """Give the (images, labels) of any rows of a split, float32 (B, 1, H, W) and int64 (B,), where the split lies."""

    def __init__(self, images: Tensor, labels: Tensor, normalize: bool, augment: Mapping[str, float] | None = None):
        self.images, self.labels = images, labels
        self.scale = 255.0 if normalize else 1.0
        self.augment = augment if augment and any(augment.values()) else None

    def __len__(self) -> int:
        return len(self.labels)

    def __call__(self, rows: Tensor | slice) -> Pairs:
        images = self.images[rows].unsqueeze(1).float().div_(self.scale)
        return (move(images, **self.augment) if self.augment else images), self.labels[rows]


class Batches:
    """Iterate over a split in batches, as it lies."""

    def __init__(self, take: Gather, batch_size: int):
        self.take, self.batch_size = take, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.take) / self.batch_size)

    def __iter__(self) -> Iterator[Pairs]:
        for start in range(0, len(self.take), self.batch_size):
            yield self.take(slice(start, start + self.batch_size))


class Block:
    """Some training batches of equal size: `rows` int64 (K, B), and `take` for a row's (images, labels)."""

    def __init__(self, rows: Tensor, take: Gather):
        self.rows, self.take = rows, take

    def __iter__(self) -> Iterator[Pairs]:
        return map(self.take, self.rows)


class Blocks:
    """Iterate over a split in blocks of up to `block` batches, in each epoch's own order; the rest comes last."""

    def __init__(self, take: Gather, order: EpochOrder, batch_size: int, block: int):
        self.take, self.batch_size, self.block = take, batch_size, block
        self.sampler, self.batch_sampler = order, None  # where Lightning looks for set_epoch

    def __len__(self) -> int:
        whole, left = divmod(len(self.take), self.batch_size)
        return math.ceil(whole / self.block) + bool(left)

    def __iter__(self) -> Iterator[Block]:
        # Drawn at the first block, not when the iterator is made: Lightning sets the epoch in between.
        order = self.sampler.draw().to(self.take.labels.device)
        left = len(order) % self.batch_size
        whole = order[: len(order) - left].view(-1, self.batch_size)
        for rows in whole.split(self.block) if len(whole) else ():
            yield Block(rows, self.take)
        if left:
            yield Block(order[None, -left:], self.take)


def move(images: Tensor, shift: float = 0, rotate: float = 0) -> Tensor:
    """Shift each image by up to `shift` pixels and turn it by up to `rotate` degrees; (B, C, H, W) in and out.

    The whole batch moves in one pass on its device, ruled by torch's generator; what comes in from outside is black.
    """
    count, _, height, width = images.shape
    angle, across, down = torch.rand(3, count, device=images.device).mul_(2).sub_(1)
    angle = angle * math.radians(rotate)
    cos, sin = angle.cos(), angle.sin()
    # affine_grid's unit is half the image's width or height
    rows = [cos, -sin, across * 2 * shift / width, sin, cos, down * 2 * shift / height]
    grid = F.affine_grid(torch.stack(rows, dim=1).view(count, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _split(
    images: Images, split: str, val_fraction: float, test_fraction: float, skip_first: int, seed: int
) -> dict[str, Pairs]:
    if split not in SPLITS:
        raise ValueError(f"split={split}: must be one of {', '.join(SPLITS)}")
    pixels, labels = (tensor[skip_first:] for tensor in images.train)
    if not len(labels):
        raise ValueError(f"skip_first={skip_first}: leaves none of {len(images.train[1])} images")
    rest, test = np.arange(len(labels)), images.test
    if split == "auto":
        is_sorted = bool((labels.diff() >= 0).all())
        split = "stratified" if images.test is None or is_sorted else "last"
    if test is None:
        count = round(test_fraction * len(labels))
        if not 0 < count < len(labels):
            raise ValueError(f"test_fraction={test_fraction}: gives {count} of {len(labels)} images to the test")
        rest, held_out = _stratify(labels, rest, count, seed)
        test = pixels[held_out], labels[held_out]
    if split == "test":
        return {"train": (pixels[rest], labels[rest]), "val": test, "test": test}
    count = round(val_fraction * len(labels))
    if not 0 < count < len(rest):
        raise ValueError(f"val_fraction={val_fraction}: gives {count} of {len(rest)} images to validation")
    rest, held_out = (rest[:-count], rest[-count:]) if split == "last" else _stratify(labels, rest, count, seed)
    return {"train": (pixels[rest], labels[rest]), "val": (pixels[held_out], labels[held_out]), "test": test}


def _stratify(labels: Tensor, rows: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` of `rows` with the classes in proportion; return the others and the drawn, each in order."""
    from sklearn.model_selection import train_test_split  # imports slowly, and plain MNIST does without

    rest, drawn = train_test_split(rows, test_size=count, stratify=labels[rows], random_state=seed)
    return np.sort(rest), np.sort(drawn)
