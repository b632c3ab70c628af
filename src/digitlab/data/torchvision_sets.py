"""Read torchvision's data sets that are not in MNIST's format, with torchvision's own readers."""

import warnings
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor

from digitlab.data.download import ensure
from digitlab.data.idx import parse_idx, read_idx
from digitlab.data.sources import Images, Pairs

IN_ONE_ARCHIVE = ("CIFAR10", "CIFAR100")
IN_FILES = ("SVHN", "USPS")
PARTS = ("train", "test")


def torchvision_set(root: Path, dataset: str, name: str) -> Images:
    """Read one of torchvision's data sets CIFAR10, CIFAR100, SVHN or USPS, of SVHN without its extra images.

    The files are in `root` where torchvision puts them; missing ones are downloaded. CIFAR's are pickled, which is
    code: torchvision reads them only where their checksums are right. Raises UnavailableError where a missing file
    cannot be downloaded, OSError where a corrupt one cannot be replaced.
    """
    if dataset not in (*IN_ONE_ARCHIVE, *IN_FILES):
        raise ValueError(f"source.dataset={dataset}: must be one of {', '.join((*IN_ONE_ARCHIVE, *IN_FILES))}")
    from torchvision import datasets

    source, root = getattr(datasets, dataset), Path(root)
    if dataset in IN_FILES:
        for part in PARTS:
            url, file, md5 = source.split_list[part]
            ensure(root / file, md5, [url])
        parts = [source(root, split=part) if dataset == "SVHN" else source(root, part == "train") for part in PARTS]
    else:
        parts = _from_archive(source, root)
    classes = getattr(parts[0], "classes", "0123456789")
    train, test = map(_pair, parts)
    return Images(name, tuple(classes), train, test)


def _from_archive(source: Any, root: Path) -> list[Any]:
    """Read a set whose files come in one archive, which is unpacked where they are missing or corrupt."""
    with suppress(RuntimeError):  # which torchvision raises for both
        return [source(root, train) for train in (True, False)]
    from torchvision.datasets.utils import extract_archive

    folder, archive = root / source.base_folder, root / source.filename
    if folder.exists():
        warnings.warn(f"{folder} lacks files, or has corrupt ones; unpacking {archive.name} again", stacklevel=4)
    ensure(archive, source.tgz_md5, [source.url])
    with TemporaryDirectory(dir=root, prefix=f".{source.base_folder}-") as unpacked:
        extract_archive(str(archive), unpacked)
        folder.mkdir(exist_ok=True)
        for file in (Path(unpacked) / source.base_folder).iterdir():
            file.replace(folder / file.name)
    return [source(root, train) for train in (True, False)]


def _pair(part: Any) -> Pairs:
    pixels = torch.as_tensor(part.data)
    if pixels.ndim == 4 and pixels.shape[1] == 3:  # SVHN's
        pixels = pixels.permute(0, 2, 3, 1)
    labels = part.labels if hasattr(part, "labels") else part.targets
    return pixels.contiguous(), torch.as_tensor(np.asarray(labels), dtype=torch.int64)


def emnist(root: Path, split: str = "balanced", name: str = "emnist") -> Images:
    """Read a split of EMNIST: balanced, byclass, bymerge, letters, digits or mnist.

    The unpacked files are read where torchvision puts them, `root`/EMNIST/raw, else those in the archive that it
    downloads, which is not unpacked. They hold every image transposed, and torchvision leaves them so; here they stand
    upright, as those of MNIST do. Letters are numbered from 0, and torchvision's class "N/A" is left out. Raises
    UnavailableError where the archive is missing and cannot be downloaded, OSError where it is corrupt and cannot be
    replaced.
    """
    from torchvision.datasets import EMNIST

    if split not in EMNIST.splits:
        raise ValueError(f"source.split={split}: must be one of {', '.join(EMNIST.splits)}")
    classes = EMNIST.classes_split_dict[split]
    first = int(classes[0] == "N/A")
    folder = Path(root) / "EMNIST" / "raw"
    names = [f"emnist-{split}-{part}-{kind}-ubyte" for part in PARTS for kind in ("images-idx3", "labels-idx1")]
    if all((folder / file).is_file() for file in names):
        found = [read_idx(folder / file) for file in names]
    else:
        archive = folder / "gzip.zip"
        ensure(archive, EMNIST.md5, [EMNIST.url])
        with ZipFile(archive) as files:
            found = [parse_idx(files.read(f"gzip/{file}.gz"), file) for file in names]
    train_images, train_labels, test_images, test_labels = found
    train, test = (
        (_upright(images), labels.long() - first)
        for images, labels in ((train_images, train_labels), (test_images, test_labels))
    )
    return Images(f"{name}_{split}", tuple(classes[first:]), train, test)


def _upright(images: Tensor) -> Tensor:
    return images.transpose(1, 2).contiguous()
