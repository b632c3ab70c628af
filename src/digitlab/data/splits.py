"""Divide images into training, validation and test."""

import numpy as np
from torch import Tensor

from digitlab.data.sources import Images, Pairs

SPLITS = ("auto", "last", "stratified", "test")


def split_images(
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
