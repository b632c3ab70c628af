"""Split images into training, validation and test sets."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from digitlab.data.sources import Images, Pairs

SPLITS = ("auto", "last", "stratified", "test")


@dataclass(frozen=True)
class Splits:
    """Split images: name of the data, class names, and the (images, labels) pairs of `train`, `val` and `test`."""

    name: str
    classes: tuple[str, ...]
    pairs: Mapping[str, Pairs]

    @property
    def sizes(self) -> dict[str, int]:
        return {stage: len(labels) for stage, (_, labels) in self.pairs.items()}

    @cached_property
    def digest(self) -> str:
        """The hash of every image and label of every split, in order: it identifies the data, wherever it is stored."""
        content = hashlib.sha256()
        for stage, pair in self.pairs.items():
            for tensor in pair:
                content.update(f"{stage}{tuple(tensor.shape)}".encode())
                content.update(tensor.contiguous().numpy().data)
        return content.hexdigest()[:32]


@dataclass(frozen=True)
class Division:
    """How to split images.

    `split` says where the validation images come from: "last" takes the last training images, as Keras's
    validation_split does; "stratified" draws them; "test" takes the test set itself, as some tutorials do. "auto" is
    "last", or "stratified" where the images are sorted by class or there is no test set. Both fractions are of the
    source's training images, after the first `skip_first` are left out. `seed` is that of the draws.
    """

    split: str = "auto"
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    skip_first: int = 0
    seed: int = 0

    def apply(self, images: Images) -> Splits:
        """Split `images`; raise ValueError where a part would be empty."""
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split}: must be one of {', '.join(SPLITS)}")
        pixels, labels = (tensor[self.skip_first :] for tensor in images.train)
        if not len(labels):
            raise ValueError(f"skip_first={self.skip_first}: leaves none of {len(images.train[1])} images")
        rest, test, split = np.arange(len(labels)), images.test, self.split
        if split == "auto":
            is_sorted = bool((labels.diff() >= 0).all())
            split = "stratified" if images.test is None or is_sorted else "last"
        if test is None:
            count = round(self.test_fraction * len(labels))
            if not 0 < count < len(labels):
                raise ValueError(
                    f"test_fraction={self.test_fraction}: gives {count} of {len(labels)} images to the test"
                )
            rest, held_out = _stratify(labels, rest, count, self.seed)
            test = pixels[held_out], labels[held_out]
        if split == "test":
            val = test
        else:
            count = round(self.val_fraction * len(labels))
            if not 0 < count < len(rest):
                raise ValueError(f"val_fraction={self.val_fraction}: gives {count} of {len(rest)} images to validation")
            last = rest[:-count], rest[-count:]
            rest, held_out = last if split == "last" else _stratify(labels, rest, count, self.seed)
            val = pixels[held_out], labels[held_out]
        pairs = {"train": (pixels[rest], labels[rest]), "val": val, "test": test}
        return Splits(images.name, images.classes, pairs)


def _stratify(labels: Tensor, rows: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` of `rows`, stratified by class; return the other rows and the drawn ones, each in order."""
    from sklearn.model_selection import train_test_split  # slow to import, and plain MNIST does not need it

    rest, drawn = train_test_split(rows, test_size=count, stratify=labels[rows], random_state=seed)
    return np.sort(rest), np.sort(drawn)
