"""Read labelled images from a NumPy archive, .npz."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from digitlab.data.depth import Range
from digitlab.data.layout import is_stored_shape
from digitlab.data.reading import Reading
from digitlab.data.sources import Images
from digitlab.platform import console

# The names of images and labels: Keras's, then others that archives are written with.
NAMES = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels"), ("x", "y"), ("images", "labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
    "val": (("x_val", "y_val"), ("val_images", "val_labels")),
}


def arrays(file: Path, reading: Reading | None = None) -> Images:
    """Read an .npz file, and say what was found in it.

    It holds `x_train` and `y_train`, and `x_test` `y_test`, `x_val` `y_val` where there are such sets; or
    `train_images` and so on; or `x` and `y`. Images are (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W): bytes are
    taken as they are, other numbers scaled as `depth.scale` says, or as `reading` says of others that these are to be
    like. Labels are numbers or texts (N,) or (N, 1), or one-hot (N, classes); the classes are in their order. Nothing
    pickled is loaded. Raises ValueError for all else.
    """
    found = _load(file)
    keys = {part: pair for part, names in NAMES.items() if (pair := _first_in(found, names))}
    if "train" not in keys:
        has = ", ".join(found) or "nothing"
        raise ValueError(f"file={file}: has {has}; must have {_choices('train')}, and may have {_choices('test')}")
    pixels = {part: _channels_last(found[images], f"{file}: {images}") for part, (images, _) in keys.items()}
    if len(kinds := {str(each.dtype) for each in pixels.values()}) > 1:
        raise ValueError(f"file={file}: has images of {' and '.join(sorted(kinds))}; must be of one kind")
    remarks: list[str] = []
    if pixels["train"].dtype != np.uint8:
        pixels = {part: each.astype(np.float32) for part, each in pixels.items()}
        try:
            values = Range.around(map(Range.of, pixels.values()))
        except ValueError as error:
            raise ValueError(f"file={file}: {error} in its images") from None
        reading = Reading((values,)).under(reading)
        scale = reading.scale(values)
        remarks.append(scale.words)
        pixels = {part: scale.to_bytes(each) for part, each in pixels.items()}
    labels = {part: _flat(found[name], f"{file}: {name}") for part, (_, name) in keys.items()}
    if len(kinds := {"texts" if each.dtype.kind == "U" else "numbers" for each in labels.values()}) > 1:
        raise ValueError(f"file={file}: has labels of {' and '.join(sorted(kinds))}; must be of one kind")
    columns = {name: found[name].shape[1] for _, name in keys.values() if _is_one_hot(found[name])}
    if len(set(columns.values())) > 1:
        counts = ", ".join(f"{count} columns in {name}" for name, count in columns.items())
        raise ValueError(f"file={file}: has one-hot labels of {counts}; must be as many, one for each class")
    classes = np.unique(np.concatenate(list(labels.values())))
    pairs = {}
    for part, each in labels.items():
        images, name = keys[part]
        if len(each) != len(pixels[part]):
            raise ValueError(f"file={file}: has {len(pixels[part])} images in {images}, {len(each)} labels in {name}")
        pairs[part] = torch.from_numpy(pixels[part]), torch.from_numpy(np.searchsorted(classes, each))
    height, width, *channels = pixels["train"].shape[1:]
    remarks.insert(0, f"{width} x {height}, {'in colour' if channels else 'gray'}")
    counts = ", ".join(f"{len(each):,} {part}" for part, each in labels.items())
    unused = [name for name in found if not any(name in pair for pair in keys.values())]
    console.say(f"data: {counts} images of {len(classes)} classes in {file}, {'; '.join(remarks)}"
                + (f"; left out: {', '.join(unused)}" if unused else ""))  # fmt: skip
    return Images(Path(file).stem, tuple(str(name) for name in classes), **pairs, reading=reading)


def _first_in(found: Mapping[str, np.ndarray], names: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    return next((pair for pair in names if set(pair) <= found.keys()), None)


def _choices(part: str) -> str:
    return " or ".join(f"{images} and {labels}" for images, labels in NAMES[part])


def _load(file: Path) -> Mapping[str, np.ndarray]:
    """Return the arrays of an .npz file by name; ValueError for what is none or would be unpickled."""
    if not Path(file).is_file():
        raise ValueError(f"file={file}: there is no such file")
    if not zipfile.is_zipfile(file):
        raise ValueError(f"file={file}: is no .npz file; numpy.savez writes one")
    found, name = {}, ""
    try:
        with np.load(file, allow_pickle=False) as archive:
            for name in archive.files:
                found[name] = archive[name]
    except Exception as error:  # whatever reads it: zipfile has RuntimeError for a password, NumPy MemoryError
        reason = "holds objects, which are not loaded; give it numbers or texts" if "pickle" in str(error) else error
        raise ValueError(f"file={file}: {f'{name}: ' if name else ''}{reason}") from error
    return {name: each for name, each in found.items() if isinstance(each, np.ndarray)}


def _channels_last(images: np.ndarray, name: str) -> np.ndarray:
    """Return images as (N, H, W) or (N, H, W, 3)."""
    if images.dtype.kind not in "buif":
        raise ValueError(f"file={name} is of {images.dtype}; must be numbers")
    if images.ndim == 4 and images.shape[3] not in (1, 3) and images.shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if not is_stored_shape(images.shape):
        wanted = "(N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W)"
        raise ValueError(f"file={name} has the shape {images.shape}; must be {wanted}")
    return np.ascontiguousarray(images)


def _is_one_hot(labels: np.ndarray) -> bool:
    """Say whether labels are to be one-hot, by their shape."""
    return labels.ndim == 2 and labels.shape[1] != 1 and labels.dtype.kind in "buif"


def _flat(labels: np.ndarray, name: str) -> np.ndarray:
    """Return labels as numbers or texts (N,)."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "S":
        try:
            labels = np.char.decode(labels, "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"file={name} has bytes that are not in UTF-8: {error.object!r}; give it texts") from error
    if _is_one_hot(labels):
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise ValueError(f"file={name} has the shape {labels.shape}, and its rows are not one-hot: one 1, else 0")
        return labels.argmax(axis=1)
    if labels.ndim != 1 or labels.dtype.kind not in "buifU":
        raise ValueError(f"file={name} is of {labels.dtype} and shape {labels.shape}; must be numbers or texts of (N,)")
    if labels.dtype.kind == "f":
        if not (np.isfinite(labels) & (labels == np.floor(labels))).all():
            raise ValueError(f"file={name} has labels that are no whole numbers")
        return labels.astype(np.int64)
    return labels
