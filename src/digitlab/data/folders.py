"""Find the labelled images in a folder: one folder for each class, in train/, val/ and test/ or not."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from digitlab.data.decoded import read_decoded
from digitlab.data.on_disk import choose
from digitlab.data.picture_file import extensions
from digitlab.data.sources import Images
from digitlab.platform import console

PARTS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
# What archives and file managers leave in folders, beside what is hidden.
NO_FOLDERS = ("__MACOSX",)


def image_folder(root: Path, size: int | None = None, color: bool | None = None) -> Images:
    """Read a folder with one folder of images for each class, as squares of `size` pixels, and say what was found.

    All images below a class's folder are of that class. Where the classes' folders are in `train` and `test` or `val`,
    these are the splits. `size` and `color` are by default what the files have: see `read_pictures`. Hidden folders
    and files that are no images are left out. A folder of many images is decoded once: see `read_decoded`.

    Raises OSError for an unreadable folder or image, ValueError for a missing folder, for fewer than two classes, for a
    class without images, and for a class that `train` does not have.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"root={root}: there is no such folder")
    left_out: Counter[str] = Counter()
    parts = {part: _classes(folder, left_out) for part, folder in _parts(root).items()}
    classes = tuple(sorted(parts["train"]))
    if len(classes) < 2:
        raise ValueError(f"{root} has {len(classes)} class folders; at least 2 are needed, one for each class")
    for part, found in parts.items():
        if unknown := sorted(set(found) - set(classes)):
            raise ValueError(f"{root}: {part} has the class {unknown[0]}, which train does not have")
    labelled = [
        (part, classes.index(name), file)
        for part, found in parts.items()
        for name in sorted(found)
        for file in found[name]
    ]
    pictures = read_decoded(root, [file for *_, file in labelled], size, color)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(left_out.items()))
    console.say(
        f"data: {len(labelled):,} images of {len(classes)} classes in {root}, {'; '.join(pictures.remarks)}"
        + (f"; left out: {counts}" if counts else "")
    )
    pairs = {}
    for part in parts:
        rows = torch.tensor([row for row, (each, *_) in enumerate(labelled) if each == part])
        pairs[part] = choose(pictures.pixels, rows), torch.tensor([labelled[row][1] for row in rows])
    return Images(root.resolve().name, classes, **pairs)


def images_below(folder: Path) -> list[Path]:
    """Return all images in a folder and those below it, in order, but for what is hidden."""
    return list(_images(folder, Counter()))


def _parts(root: Path) -> dict[str, Path]:
    """Return the folders of train, val and test; where the user made no such split, `root` is train."""
    folders = {PARTS[name.lower()]: root / name for name in _subfolders(root) if name.lower() in PARTS}
    is_split = "train" in folders and len(folders) > 1
    if is_split and all(_subfolders(folder) for folder in folders.values()):
        return folders
    return {"train": root}


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _is_hidden(entry.name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in NO_FOLDERS


def _classes(folder: Path, left_out: Counter[str]) -> dict[str, list[Path]]:
    """Return the image files of each class, and count in `left_out` what is not read, by its kind."""
    found: dict[str, list[Path]] = {}
    for name in sorted(os.listdir(folder)):
        if not (folder / name).is_dir():
            left_out[_kind(name)] += 1
        elif _is_hidden(name):
            left_out[f"in {name}"] += sum(1 for _ in _files(folder / name))
        else:
            found[name] = list(_images(folder / name, left_out))
            if not found[name]:
                raise ValueError(f"{folder / name} has no images in it; allowed: {', '.join(extensions())}")
    return found


def _images(folder: Path, left_out: Counter[str]) -> Iterator[Path]:
    for file in _files(folder):
        hidden = [part for part in file.relative_to(folder).parts[:-1] if _is_hidden(part)]
        if hidden:
            left_out[f"in {hidden[0]}"] += 1
        elif file.suffix.lower() in extensions() and not _is_hidden(file.name):
            yield file
        else:
            left_out[_kind(file.name)] += 1


def _kind(file: str) -> str:
    return file if _is_hidden(file) else Path(file).suffix.lower() or "without an extension"


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files below `folder` in order, through links to folders too, each folder once."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(each for each in folders if not _loops(Path(place, each), seen))
        yield from (Path(place, file) for file in sorted(files))


def _loops(folder: Path, seen: set[Path]) -> bool:
    """Say whether a folder was entered before, by whatever way."""
    real = folder.resolve()
    was_seen = real in seen
    seen.add(real)
    return was_seen
