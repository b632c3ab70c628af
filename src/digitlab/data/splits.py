"""Split images into training, validation and test sets."""

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from torch import Tensor

from digitlab.data.on_disk import at_once, choose
from digitlab.data.reading import Reading
from digitlab.data.sources import Images, StoredPairs

MOST_NAMED = 5  # classes that a line names
SPLITS = ("auto", "first", "last", "random", "stratified", "test")


@dataclass(frozen=True)
class Splits:
    """Split images: name of the data, class names, and the (images, labels) pairs of `train`, `val` and `test`.

    `reading` is how they were read, where that depended on all of them.
    """

    name: str
    classes: tuple[str, ...]
    pairs: Mapping[str, StoredPairs]
    reading: Reading | None = None

    @property
    def sizes(self) -> dict[str, int]:
        return {stage: len(labels) for stage, (_, labels) in self.pairs.items()}

    @cached_property
    def digest(self) -> str:
        """The hash of every image and label of every split, in order: it identifies the data, wherever it is stored."""
        return self._hash(*self.pairs)

    @cached_property
    def test_digest(self) -> str:
        """The hash of every test image and label: accuracies can be compared where it is the same."""
        return self._hash("test")

    def _hash(self, *stages: str) -> str:
        content = hashlib.sha256()
        for stage in stages:
            for tensor in self.pairs[stage]:
                content.update(f"{stage}{tuple(tensor.shape)}".encode())
                step = at_once(tensor.shape[1:])
                for start in range(0, len(tensor), step):
                    content.update(tensor[start : start + step].contiguous().numpy().data)
        return content.hexdigest()[:32]


def warn_of_absent(splits: Splits, helps: Mapping[str, str]) -> None:
    """Warn of the classes that one part has images of and another none; `helps` says what gives a part some."""
    present = {part: set(labels.unique().tolist()) for part, (_, labels) in splits.pairs.items()}
    for part, found in present.items():
        names = [splits.classes[label] for label in sorted(set().union(*present.values()) - found)]
        if names:
            more = f" and {len(names) - MOST_NAMED} more" if names[MOST_NAMED:] else ""
            listed = f"{'classes' if names[1:] else 'class'} {', '.join(names[:MOST_NAMED])}{more}"
            hint = f"; {helps[part]} may give it some" if part in helps else ""
            warnings.warn(f"{splits.name}: there is no {part} image of {listed}{hint}", stacklevel=2)


@dataclass(frozen=True)
class Division:
    """How to split images.

    `split` says where the validation images come from: "last" takes the last training images, as Keras's
    validation_split does, "first" the first; "random" draws them, "stratified" so that each class keeps its share;
    "test" takes the test set itself, as some tutorials do. "auto" is
    the source's own validation set where it has one, else "last", or "stratified" where the images are sorted by class
    or there is no test set. Both fractions are of the source's training images, after the first `skip_first` are left
    out. `seed` is that of the draws. With `folds` the training images are drawn into so many parts, and that of number
    `fold` modulo `folds` is the test set, in place of the source's: k-fold cross-validation, scikit-learn's KFold.
    """

    split: str = "auto"
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    skip_first: int = 0
    seed: int = 0
    folds: int | None = None
    fold: int = 0

    def apply(self, images: Images) -> Splits:
        """Split `images`; raise ValueError where a part would be empty, or a class too small to be divided."""
        self._check(images)
        pixels, labels = (choose(each, slice(self.skip_first, None)) for each in images.train)
        assert isinstance(labels, Tensor)
        if not len(labels):
            raise ValueError(f"skip_first={self.skip_first}: leaves none of {len(images.train[1])} images")
        rest, test, split = np.arange(len(labels)), images.test, self.split
        if split == "auto":
            changes = int((labels.diff() != 0).sum())
            is_sorted = changes < len(images.classes)  # each class in one block, in whatever order
            split = "stratified" if images.test is None or is_sorted else "last"
        is_drawn = self.folds or test is None or (images.val is None and split in ("random", "stratified"))
        if self.seed != Division.seed and not is_drawn:
            raise ValueError(f"split_seed={self.seed}: no image is drawn of this data set with split={self.split}")
        if self.folds:
            rest, held_out = self._fold(rest, self.folds)
            test = choose(pixels, held_out), labels[held_out]
        elif test is None:
            count = round(self.test_fraction * len(labels))
            if not 0 < count < len(labels):
                raise ValueError(
                    f"test_fraction={self.test_fraction}: gives {count} of {len(labels)} images to the test"
                )
            rest, held_out = self._stratify(images, labels, rest, "test_fraction", count)
            test = choose(pixels, held_out), labels[held_out]
        if images.val is not None:
            val = images.val
        elif split == "test":
            val = test
        else:
            count = round(self.val_fraction * len(labels))
            if not 0 < count < len(rest):
                raise ValueError(f"val_fraction={self.val_fraction}: gives {count} of {len(rest)} images to validation")
            if split == "last":
                rest, held_out = rest[:-count], rest[-count:]
            elif split == "first":
                rest, held_out = rest[count:], rest[:count]
            elif split == "random":
                drawn = np.random.default_rng(self.seed).permutation(rest)
                rest, held_out = np.sort(drawn[count:]), np.sort(drawn[:count])
            else:
                rest, held_out = self._stratify(images, labels, rest, "val_fraction", count)
            val = choose(pixels, held_out), labels[held_out]
        pairs = {"train": (choose(pixels, rest), labels[rest]), "val": val, "test": test}
        splits = Splits(images.name, images.classes, pairs, images.reading)
        warn_of_absent(splits, self._helps(images, split))
        return splits

    def _helps(self, images: Images, split: str) -> dict[str, str]:
        """Return, for each part that is drawn, what may give it images of a class that it has none of."""
        helps: dict[str, str] = {}
        if images.val is None and split in ("first", "last", "random"):
            helps["train"] = helps["val"] = "split=stratified"
        elif images.val is None and split == "stratified":
            helps["val"] = "more images of it or a higher val_fraction"
        if images.test is None and not self.folds:
            helps["test"] = "more images of it or a higher test_fraction"
        return helps

    def _check(self, images: Images) -> None:
        """Raise ValueError for a value that cannot be, or that nothing would read."""
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split}: must be one of {', '.join(SPLITS)}")
        if self.fold and not self.folds:
            raise ValueError(f"fold={self.fold}: is one of folds; give data.folds")
        if images.val is not None and self.split != "auto":
            raise ValueError(f"split={self.split}: the data has its own validation set; only auto is possible")
        is_given = "the data has its own" if images.val is not None else "with split=test it is the test set"
        if self.val_fraction != Division.val_fraction and (images.val is not None or self.split == "test"):
            raise ValueError(f"val_fraction={self.val_fraction}: no validation set is drawn: {is_given}")
        is_given = "a fold is the test set" if self.folds else "the data has its own"
        if self.test_fraction != Division.test_fraction and (images.test is not None or self.folds):
            raise ValueError(f"test_fraction={self.test_fraction}: no test set is drawn: {is_given}")

    def _fold(self, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows outside the fold and those in it, each in order."""
        from sklearn.model_selection import KFold

        if count > len(rows):
            raise ValueError(f"folds={count}: there are {len(rows)} images for training")
        folds = KFold(count, shuffle=True, random_state=self.seed).split(rows)
        return next(islice(folds, self.fold % count, None))

    def _stratify(
        self, images: Images, labels: Tensor, rows: np.ndarray, key: str, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw `count` of `rows`, stratified by class; return the other rows and the drawn ones, each in order."""
        from sklearn.model_selection import train_test_split  # slow to import, and plain MNIST does not need it

        found, sizes = labels[rows].unique(return_counts=True)
        if (smallest := int(sizes.min())) < 2:
            name = images.classes[int(found[sizes.argmin()])]
            part, plain = ("val", "split=random, ") if key == "val_fraction" else ("test", "")
            raise ValueError(
                f"class {name} has {smallest} image left, too few to be divided by {key}: give it more, {plain}or a "
                f"{part} set of your own (of a folder its folder {part}, of arrays x_{part})"
            )
        if min(count, len(rows) - count) < len(found):
            raise ValueError(
                f"{key}={getattr(self, key)}: makes parts of {len(rows) - count} and {count} images; "
                f"each needs one of each of the {len(found)} classes"
            )
        rest, drawn = train_test_split(rows, test_size=count, stratify=labels[rows], random_state=self.seed)
        return np.sort(rest), np.sort(drawn)
