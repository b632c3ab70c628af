"""MLflow's scoring protocol: read the images of a request, write the probabilities of an answer."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

KEYS = ("instances", "inputs")


def read_images(body: bytes, content_type: str, shape: Sequence[int]) -> np.ndarray:
    """Return the images of a request, uint8 (N, *shape).

    Raises ValueError, with what is allowed, for any other body. Numbers from 0 to 1 are refused: they are pixels that
    somebody has divided by 255, and would be read as black.
    """
    if content_type.partition(";")[0].strip().lower() not in ("", "application/json"):
        raise ValueError(f"Content-Type {content_type[:60]!r}: must be application/json")
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is no JSON: {str(error)[:100]}") from None
    if not isinstance(content, dict) or len(given := [key for key in KEYS if key in content]) != 1:
        raise ValueError(
            f"the body must be an object with one of {' and '.join(KEYS)}, which holds images {list(shape)}"
        )
    if unknown := sorted(content.keys() - {*given, "params"}):
        raise ValueError(f"{unknown[0][:60]!r}: unknown key; allowed: {', '.join(KEYS)}")
    if content.get("params"):
        raise ValueError("params: this model takes none")
    return _pixels(given[0], content[given[0]], tuple(shape))


def _pixels(key: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    dimensions = ", ".join(map(str, shape))
    try:
        found = np.array(values)
    except (ValueError, OverflowError, RecursionError):
        found = np.empty(0, object)
    if found.shape[1:] != shape or found.dtype.kind not in "iuf":
        there = "lists of unlike length, or other things than numbers"
        if found.dtype.kind in "iuf":
            there = f"({', '.join(map(str, found.shape))})"
        raise ValueError(f"{key}: must be numbers of the shape (N, {dimensions}), and is {there}")
    if not np.isfinite(found).all() or (found.size and not 0 <= found.min() <= found.max() <= 255):
        raise ValueError(f"{key}: pixels must be from 0 to 255")
    if found.dtype.kind == "f":
        if found.size and 0 < found.max() <= 1:
            raise ValueError(f"{key}: pixels from 0.0 to 1.0 would be black; multiply them by 255 and round them")
        if (found % 1).any():
            raise ValueError(f"{key}: pixels must be whole numbers from 0 to 255; round them")
    return found.astype(np.uint8)


def write_probabilities(probabilities: np.ndarray) -> bytes:
    """Return an answer: the probabilities (N, C) of each image."""
    return json.dumps({"predictions": probabilities.tolist()}).encode()
