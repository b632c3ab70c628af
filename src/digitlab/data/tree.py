"""Walk through a folder of images: what in it is an image, what is hidden, what is left out."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from digitlab.data.picture_file import extensions

# What archives and file managers leave in folders, beside what is hidden.
NO_FOLDERS = ("__MACOSX",)


def subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _is_hidden(entry.name))


def has_images(folder: Path) -> bool:
    """Say whether there is an image in a folder or below it."""
    return any(True for _ in images(folder, {folder.resolve()}, Counter()))


def has_own_images(folder: Path) -> bool:
    """Say whether there is an image in a folder itself."""
    return any(entry.is_file() and _is_image(entry) for entry in folder.iterdir())


def images(folder: Path, seen: set[Path], left_out: Counter[str]) -> Iterator[Path]:
    """Yield all images below `folder` in order, and count in `left_out` what else there is, by its kind.

    Folders are entered once: those in `seen` are not, and it gets the others.
    """
    for file in _files(folder, seen):
        hidden = [part for part in file.relative_to(folder).parts[:-1] if _is_hidden(part)]
        if hidden:
            left_out[f"in {hidden[0]}"] += 1
        elif _is_image(file):
            yield file
        else:
            left_out[_kind(file.name)] += 1


def leave_out(place: Path, left_out: Counter[str]) -> None:
    """Count in `left_out` a file by its kind, or all files below a folder by the folder's name."""
    if place.is_dir():
        left_out[f"in {place.name}"] += sum(1 for _ in _files(place, {place.resolve()}))
    else:
        left_out[_kind(place.name)] += 1


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in NO_FOLDERS


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in extensions() and not _is_hidden(file.name)


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
