"""Find the labelled images in a folder: one folder for each class, in train/, val/ and test/ or not."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from digitlab.data.decoded import read_decoded
from digitlab.data.on_disk import choose
from digitlab.data.picture_file import extensions
from digitlab.data.reading import Reading
from digitlab.data.sources import Images
from digitlab.platform import console
from digitlab.platform.text import count

PARTS = {
    name: part
    for part, names in {
        "train": ("train", "training"),
        "test": ("test", "testing"),
        "val": ("val", "valid", "validation", "validate"),
    }.items()
    for name in names
}
# What archives and file managers leave in folders, beside what is hidden.
NO_FOLDERS = ("__MACOSX",)
MOST_KINDS = 8  # of what is left out that a line names


def image_folder(
    root: Path, size: int | None = None, color: bool | None = None, reading: Reading | None = None
) -> Images:
    """Read a folder with one folder of images for each class, as squares of `size` pixels, and say what was found.

    All images below a class's folder are of that class. Where the classes' folders are in `train` and `test` or `val`,
    or alone in `train`, these are the splits. `size` and `color` are by default what the files have, `reading` is of
    other images that these are to be like: see `read_pictures`. Hidden folders and files that are no images are left
    out. A folder of many images is decoded once: see `read_decoded`.

    Raises OSError for an unreadable folder or image, ValueError for a missing folder, for fewer than two classes, for a
    class without images, for one folder by two names, and for splits that cannot be told.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"root={root}: there is no such folder")
    left_out: Counter[str] = Counter()
    parts = {part: _classes(folder, left_out) for part, folder in _parts(root, left_out).items()}
    if len(parts["train"]) < 2:
        raise ValueError(f"{root} has {count(len(parts['train']), 'class folder')}; must have 2 or more, one a class")
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
        f"data: {len(labelled):,} images of {len(classes)} classes in {root}, {'; '.join(pictures.remarks)}"
        + (f"; left out: {counts}" if counts else "")
    )
    pairs = {}
    for part in parts:
        rows = torch.tensor([row for row, (each, *_) in enumerate(labelled) if each == part])
        pairs[part] = choose(pictures.pixels, rows), torch.tensor([labelled[row][1] for row in rows])
    return Images(root.resolve().name, classes, **pairs, reading=pictures.reading)


def images_below(folder: Path) -> list[Path]:
    """Return all images in a folder and those below it, in order, but for what is hidden."""
    return list(_images(folder, {folder.resolve()}, Counter()))


def _parts(root: Path, left_out: Counter[str]) -> dict[str, Path]:
    """Return the folders of train, val and test, and count what else there is; where there is no split, root is train.

    Classes may be called so as well: a split is where train has class folders, and another part or no other folder is
    beside it.
    """
    found: dict[str, Path] = {}
    twice: list[Path] = []
    for name in _subfolders(root):
        if part := PARTS.get(name.lower()):
            twice += [root / name] if part in found else []
            found.setdefault(part, root / name)
    if "train" not in found or not _subfolders(found["train"]) or len(found) == 1 < len(_subfolders(root)):
        return {"train": root}
    for folder in twice:
        first = found[PARTS[folder.name.lower()]]
        raise ValueError(f"{root}: {first.name} and {folder.name} are folders of one part; must be one folder")
    for folder in found.values():
        if not _subfolders(folder):
            raise ValueError(f"{folder} has no class folders; must have those of {found['train']}, or another name")
    for name in sorted(os.listdir(root)):
        if root / name not in found.values():
            _leave_out(root / name, left_out)
    return found


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _is_hidden(entry.name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in NO_FOLDERS


def _classes(folder: Path, left_out: Counter[str]) -> dict[str, list[Path]]:
    """Return the image files of each class, each folder once, and count in `left_out` what is not read, by its kind."""
    places: dict[Path, str] = {}
    for name in _subfolders(folder):
        other = places.setdefault((folder / name).resolve(), name)
        if other != name:
            raise ValueError(f"{folder}: {other} and {name} are one folder; must be two, for two classes")
    for name in sorted(set(os.listdir(folder)) - set(places.values())):
        _leave_out(folder / name, left_out)
    seen = {folder.resolve(), *places}
    found = {name: list(_images(folder / name, seen, left_out)) for name in places.values()}
    for name, images in found.items():
        if not images:
            raise ValueError(f"{folder / name} has no images in it; allowed: {', '.join(extensions())}")
    return found


def _leave_out(place: Path, left_out: Counter[str]) -> None:
    if place.is_dir():
        left_out[f"in {place.name}"] += sum(1 for _ in _files(place, {place.resolve()}))
    else:
        left_out[_kind(place.name)] += 1


def _images(folder: Path, seen: set[Path], left_out: Counter[str]) -> Iterator[Path]:
    for file in _files(folder, seen):
        hidden = [part for part in file.relative_to(folder).parts[:-1] if _is_hidden(part)]
        if hidden:
            left_out[f"in {hidden[0]}"] += 1
        elif file.suffix.lower() in extensions() and not _is_hidden(file.name):
            yield file
        else:
            left_out[_kind(file.name)] += 1


def _kind(file: str) -> str:
    if file.startswith("._"):  # what macOS keeps of a file where the disk cannot, under the file's name
        return "._*"
    return file if _is_hidden(file) else Path(file).suffix.lower() or "without an extension"


def _files(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield all files below `folder` in order, through links to folders too, but for those folders that were `seen`."""
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [each for each in sorted(folders) if _is_new(Path(place, each), seen)]
        yield from (Path(place, file) for file in sorted(files))


def _is_new(folder: Path, seen: set[Path]) -> bool:
    """Say whether a folder was not entered before, by whatever way."""
    real = folder.resolve()
    was_seen = real in seen
    seen.add(real)
    return not was_seen
