"""Find the labelled images in a folder: one folder for each class, in train/, val/ and test/ or not."""

import os
from collections import Counter
from pathlib import Path

import torch

from digitlab.data.decoded import read_decoded
from digitlab.data.on_disk import choose
from digitlab.data.parts import find_parts
from digitlab.data.picture_file import extensions
from digitlab.data.reading import Reading
from digitlab.data.sources import Images
from digitlab.data.tree import images, leave_out, subfolders
from digitlab.platform import console
from digitlab.platform.text import count

ORDER = ("train", "val", "test")  # in which the parts are named
MOST_KINDS = 8  # of what is left out that a line names


def image_folder(
    root: Path, size: int | None = None, color: bool | None = None, reading: Reading | None = None
) -> Images:
    """Read a folder with one folder of images for each class, as squares of `size` pixels, and say what was found.

    All images below a class's folder are of that class. Where the classes' folders are in `train`, the parts are what
    `find_parts` says. `size` and `color` are by default what the files have, `reading` is of other images that these
    are to be like: see `read_pictures`. Hidden folders and files that are no images are left out. A folder of many
    images is decoded once: see `read_decoded`.

    Raises OSError for an unreadable folder or image, ValueError for a missing folder, for fewer than two classes, for a
    class without images, for one folder by two names, and for splits that cannot be told.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"root={root}: there is no such folder")
    left_out: Counter[str] = Counter()
    places = find_parts(root)
    parts = {part: _classes(folder, left_out) for part, folder in places.items()}
    _check_number(places["train"], list(parts["train"]))
    where = str(root)
    if places != {"train": root}:
        where += f" ({', '.join(_as_part(places[part].name, part) for part in ORDER if part in places)})"
        for beside in sorted(set(root.iterdir()) - set(places.values())):
            leave_out(beside, left_out)
    classes = tuple(sorted({name for found in parts.values() for name in found}))
    labelled = [
        (part, classes.index(name), file)
        for part, found in parts.items()
        for name in sorted(found)
        for file in found[name]
    ]
    pictures = read_decoded(root, [file for *_, file in labelled], size, color, reading)
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(left_out.most_common(MOST_KINDS)))
    if (more := len(left_out) - MOST_KINDS) > 0:
        counts += f", and {count(more, 'more kind')}"
    console.say(
        f"data: {len(labelled):,} images of {len(classes)} classes in {where}, {'; '.join(pictures.remarks)}"
        + (f"; left out: {counts}" if counts else "")
    )
    pairs = {}
    for part in parts:
        rows = torch.tensor([row for row, (each, *_) in enumerate(labelled) if each == part])
        pairs[part] = choose(pictures.pixels, rows), torch.tensor([labelled[row][1] for row in rows])
    return Images(root.resolve().name, classes, **pairs, reading=pictures.reading)


def images_below(folder: Path) -> list[Path]:
    """Return all images in a folder and those below it, in order, but for what is hidden."""
    return list(images(folder, {folder.resolve()}, Counter()))


def _check_number(folder: Path, classes: list[str]) -> None:
    """Raise ValueError for fewer than two classes, which are where there is a folder too many above them."""
    if len(classes) < 2:
        hint = f"; did you mean: root={folder / classes[0]}" if classes and subfolders(folder / classes[0])[1:] else ""
        raise ValueError(f"{folder} has {count(len(classes), 'class folder')}; must have 2 or more, one a class{hint}")


def _as_part(name: str, part: str) -> str:
    return name if name.lower() == part else f"{name} as {part}"


def _classes(folder: Path, left_out: Counter[str]) -> dict[str, list[Path]]:
    """Return the image files of each class, each folder once, and count in `left_out` what is not read, by its kind."""
    places: dict[Path, str] = {}
    for name in subfolders(folder):
        other = places.setdefault((folder / name).resolve(), name)
        if other != name:
            raise ValueError(f"{folder}: {other} and {name} are one folder; must be two, for two classes")
    for name in sorted(set(os.listdir(folder)) - set(places.values())):
        leave_out(folder / name, left_out)
    seen = {folder.resolve(), *places}
    found = {name: list(images(folder / name, seen, left_out)) for name in places.values()}
    for name, files in found.items():
        if not files:
            raise ValueError(f"{folder / name} has no images in it; allowed: {', '.join(extensions())}")
    return found
