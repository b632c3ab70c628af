"""The LightningDataModule: one data set as batches on the training device."""

import inspect
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from digitlab import REPOSITORY
from digitlab.data.augment import Augment
from digitlab.data.batches import Batches, Chunks, EpochOrder
from digitlab.data.download import UnavailableError
from digitlab.data.preprocess import Preprocess
from digitlab.data.reading import Reading
from digitlab.data.resize import resize
from digitlab.data.sources import Images, StoredPairs, check_images, warn_of_identical
from digitlab.data.splits import Division, Splits

# By device: the evaluation batch, small enough for a CPU's cache, and the optimizer steps in one Lightning batch.
EVALUATION_BATCH = {"cpu": 128, "cuda": 2000}
STEPS_PER_EXECUTION = {"cpu": 16, "cuda": 128}


class ImageData(pl.LightningDataModule):
    """Split the images of a source, and serve them to any Lightning module as batches of (images, labels).

    Batches are float32 (B, C, H, W) and int64 (B,) on the training device, where the whole set lies as uint8.

    - `source` is called with those of `root`, `file`, `size`, `color` that it takes; `fallback` if it is unavailable.
    - `size` of the images in pixels, which become squares, and whether they have `color`; None: as the source has them.
    - `split`, `val_fraction`, `test_fraction`, `skip_first`, `split_seed`, `folds`, `fold`: see `Division`.
    - `normalize`, `mean`, `std`: see `Preprocess`.
    - `seed` determines the order of each epoch; without `shuffle` it is the source's.
    - `drop_last` leaves out a last training batch that is smaller.
    - `augment` holds the keywords of `Augment`, which changes training images.
    - `steps_per_execution` above 1 gives training batches in `Chunks` of that many, for a module that takes them; None
      chooses by the device. It changes no number.
    """

    def __init__(
        self,
        source: Callable[..., Images],
        root: str | None = None,
        file: str | None = None,
        size: int | None = None,
        color: bool | None = None,
        fallback: Callable[[], Images] | bool | None = None,
        batch_size: int = 128,
        steps_per_execution: int | None = 1,
        split: str = "auto",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        skip_first: int = 0,
        split_seed: int = 0,
        folds: int | None = None,
        fold: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        normalize: bool = True,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        augment: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        if fallback and not callable(fallback):
            raise ValueError(f"fallback={json.dumps(fallback)}: must be false, null or a source")
        self.source, self.root, self.file, self.fallback = source, root, file, fallback or None
        self.form = {name: value for name, value in {"size": size, "color": color}.items() if value is not None}
        self.batch_size, self.steps_per_execution, self.seed = batch_size, steps_per_execution, seed
        self.division = Division(split, val_fraction, test_fraction, skip_first, split_seed, folds, fold)
        self.preprocess = Preprocess(normalize, mean, std)
        self.augment = Augment(**(augment or {}))
        self.shuffle, self.drop_last = shuffle, drop_last
        self.share: tuple[int, int] = (0, 1)  # of each training batch: see Batches
        self.joins_last = False  # for a network that cannot train on a single image: see Batches
        self.batches_per_step = 1  # whose gradients a module adds up
        self.reading: Reading | None = None  # of other images that these are to be read like
        self.loaded: Splits | None = None

    def setup(self, stage: str | None = None) -> None:
        """Load and split the images, once; OSError if they cannot be loaded, ValueError if they cannot be split."""
        if self.loaded is None:
            images = self.read()
            warn_of_identical(images)
            self.loaded = self.division.apply(images)
            self.check()

    def check(self) -> None:
        """Raise ValueError where what is known of the loaded images does not go with the settings."""
        shape = self.splits["train"][0].shape
        self.preprocess.check(shape[3] if len(shape) == 4 else 1)

    @property
    def ready(self) -> Splits:
        """The split images; RuntimeError before `setup`."""
        if self.loaded is None:
            raise RuntimeError("the images are not loaded yet: call setup() first")
        return self.loaded

    @property
    def classes(self) -> tuple[str, ...]:
        return self.ready.classes

    @property
    def num_classes(self) -> int:
        return len(self.ready.classes)

    @property
    def splits(self) -> Mapping[str, StoredPairs]:
        """The stored images and labels of `train`, `val` and `test`: uint8 (N, H, W) or (N, H, W, 3), int64 (N,)."""
        return self.ready.pairs

    @property
    def sizes(self) -> dict[str, int]:
        return self.ready.sizes

    @property
    def digest(self) -> str:
        return self.ready.digest

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one image as a network gets it: (C, H, W)."""
        return tuple(self.preprocess(self.splits["train"][0][:1]).shape[1:])

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.training_batches()) // self.batches_per_step)

    def batch_sizes(self, stage: str, device: torch.device) -> list[int]:
        """Return how many images the batches of a split have on `device`: the most, and what is left for the last."""
        whole = self.batch_size if stage == "train" else _of_device(EVALUATION_BATCH, device)
        count = self.sizes[stage]
        sizes = {min(whole, count), count % whole or whole}
        if stage == "train":
            sizes = {whole} if self.drop_last and count >= whole else sizes
            processes = self.share[1]
            sizes = {part for size in sizes for part in (size // processes, -(-size // processes))}
        return sorted(sizes & set(range(1, count + 1)), reverse=True)

    def train_dataloader(self) -> Batches | Chunks:
        batches = self.training_batches()
        steps = self.steps_per_execution or _of_device(STEPS_PER_EXECUTION, batches.labels.device)
        steps *= self.batches_per_step
        return Chunks(batches, steps) if steps > 1 else batches

    def val_dataloader(self) -> Batches:
        return self._evaluation("val")

    def test_dataloader(self) -> Batches:
        return self._evaluation("test")

    def predict_dataloader(self) -> Batches:
        return self._evaluation("test")

    def training_batches(self) -> Batches:
        """Return the training images as single batches, of the whole set in an order of each epoch."""
        order = EpochOrder(self.sizes["train"], self.seed) if self.shuffle else None
        split = self._on_device("train")
        ends = {"joins_last": self.joins_last, "drop_last": self.drop_last}
        return Batches(split, self.preprocess, self.batch_size, order, self.augment, **ends, share=self.share)

    def _evaluation(self, stage: str) -> Batches:
        split = self._on_device(stage)
        return Batches(split, self.preprocess, _of_device(EVALUATION_BATCH, split[0].device))

    def read(self) -> Images:
        """Read the images as the source gives them, in the size that is asked for, not split."""
        root = Path(self.root).expanduser() if self.root else REPOSITORY / "data"
        parameters = inspect.signature(self.source).parameters
        takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
        for name, value in {"root": self.root, "file": self.file}.items():
            if value and name not in parameters and not takes_any:
                raise ValueError(f"{name}={value}: the source takes none; allowed: null")
        if not self.file and "file" in parameters and parameters["file"].default is inspect.Parameter.empty:
            raise ValueError(f"file={json.dumps(self.file)}: must be the file that the source reads")
        places = {"root": root} | ({"file": Path(self.file).expanduser()} if self.file else {})
        told = {name: value for name, value in (places | self.form).items() if name in parameters or takes_any}
        told |= {"reading": self.reading} if self.reading and "reading" in parameters else {}
        try:
            return resize(check_images(self.source(**told)), **self.form)
        except UnavailableError as error:
            if not self.fallback:
                raise
            images = check_images(self.fallback())
            warnings.warn(f"{error}. Using the embedded {images.name} instead", stacklevel=2)
            return resize(images, **self.form)

    def _on_device(self, stage: str) -> StoredPairs:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        images, labels = self.splits[stage]
        return images.to(device), labels.to(device)


def _of_device(by_device: Mapping[str, int], device: torch.device) -> int:
    return by_device.get(device.type, by_device["cpu"])
