"""Say what image files show, as many as there are, one after the other."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from digitlab.config.errors import UserError
from digitlab.data.folders import images_below
from digitlab.data.picture_file import extensions
from digitlab.inference.answers import FORMS, Answer
from digitlab.inference.look import Picture, Seen
from digitlab.inference.model import TrackedModel, tracked_model
from digitlab.platform.text import printable
from digitlab.tracking.store import Store

BATCH = 64  # files in memory at once
UNREAD = 3  # exit code where a file could not be read, or shows nothing


def predict(
    store: Store, reference: str, paths: Sequence[Path], form: str, many: bool = False, inputs: Path | None = None
) -> int:
    """Print what the model of a run says of each file, those in folders too; return the exit code.

    It is 0, or UNREAD where a file could not be read. `form` is one of FORMS. With `many`, all digits of a picture are
    read, else the largest. What the network saw is written into the folder `inputs`. Raises UserError.
    """
    files = list(_expand(paths))
    if inputs and not next(each for each in (inputs, *inputs.absolute().parents) if each.exists()).is_dir():
        raise UserError(f"--save-inputs={inputs}: must be a folder")
    model = tracked_model(store, reference)
    if many and not model.is_framed_like_mnist:
        raise UserError(f"--many: digits are found for models of MNIST's digits, and {model.name} is none")
    print(f"model: {printable(model.name)} (run {model.run_id[:8]})", file=sys.stderr)
    writer, failed = FORMS[form](model.classes, [str(file) for file in files], many), 0
    if inputs:
        inputs.mkdir(parents=True, exist_ok=True)
    is_quiet = sys.stdout.isatty() or not sys.stderr.isatty()  # else the answers are the progress
    with (
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        tqdm(total=len(files), unit="file", disable=is_quiet) as bar,
    ):
        for start in range(0, len(files), BATCH):
            some = files[start : start + BATCH]
            found = list(pool.map(partial(_or_error, model, many), some))
            seen = [each for each in found if isinstance(each, Seen)]
            images = np.concatenate([each.images for each in seen]) if seen else np.empty(0)
            probabilities = iter(model.predict(torch.from_numpy(images)) if seen else ())
            for index, (file, each) in enumerate(zip(some, found, strict=True), start):
                if isinstance(each, Seen):
                    given = np.array([next(probabilities) for _ in each.images])
                    writer.write(Answer(str(file), given, each.boxes, each.left_out))
                    if inputs:
                        _save(inputs, index, file, each.images)
                else:
                    failed += 1
                    writer.fail(str(file), each)
                bar.update()
    if failed:
        print(f"{failed:,} of {len(files):,} files gave no answer", file=sys.stderr)
    return UNREAD if failed else 0


def _expand(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield each file, and those below each folder; UserError for a folder without images."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        below = images_below(path)
        if not below:
            raise UserError(f"{path}: has no images in it; allowed: {', '.join(extensions())}")
        yield from below


def _or_error(model: TrackedModel, many: bool, file: Path) -> Seen | str:
    """Return what is seen in a file, or why nothing is."""
    try:
        return Picture(file).see(model, many)
    except (OSError, ValueError) as error:
        return " ".join(str(error).removeprefix(f"{file} ").split())


def _save(folder: Path, index: int, file: Path, images: np.ndarray) -> None:
    stem = re.sub(r"[^\w.-]", "_", file.stem)[:100]
    for position, image in enumerate(images, 1):
        name = f"{index + 1:05d}-{stem}" + (f"-{position}" if len(images) > 1 else "")
        Image.fromarray(image).save(folder / f"{name}.png")
