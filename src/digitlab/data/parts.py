"""Find which folders of a data set are its parts: train, val and test."""

import re
from pathlib import Path

from digitlab.data.tree import has_images, has_own_images, subfolders

PARTS = {
    name: part
    for part, names in {
        "train": ("train", "training"),
        "test": ("test", "testing"),
        "val": ("val", "valid", "validation", "validate", "dev", "eval"),
    }.items()
    for name in names
}
WANTED = "must have a folder of images for each class, or folders train, test and val (train at least) with those in it"


def find_parts(root: Path) -> dict[str, Path]:
    """Return the folders of train, val and test; where the classes' folders are in `root` itself, that is train.

    Classes may be called so as well: a split is where train has class folders. Raises ValueError for what may be meant
    as a split and is none, which would be learnt as a class for each part.
    """
    found: dict[str, Path] = {}
    twice: list[Path] = []
    for name in subfolders(root):
        if part := PARTS.get(name.lower()):
            twice += [root / name] if part in found else []
            found.setdefault(part, root / name)
    folders = _with_images(root)
    if not ("train" in found and _with_images(found["train"])):
        meant = {_meant_part(name) for name in folders}
        if None not in meant and len(meant) == len(folders) > 1:
            raise ValueError(f"{root}: {_listed(folders)} would be its classes; {WANTED}")
        return {"train": root}
    for folder in twice:
        first = found[PARTS[folder.name.lower()]]
        raise ValueError(f"{root}: {first.name} and {folder.name} are folders of one part; must be one folder")
    for folder in found.values():
        if not subfolders(folder):
            raise ValueError(f"{folder} has no class folders; must have those of {found['train']}, or another name")
    train = found["train"]
    inner = _with_images(train)
    if all(name.lower() in PARTS for name in inner):
        raise ValueError(f"{train}: {_listed(inner)} would be its classes; {WANTED}, or give root={train}")
    others = [name for name in folders if root / name not in found.values()]
    if others and has_own_images(train):
        raise ValueError(
            f"{train} has class folders and images beside them, so it may be the split or a class, as {others[0]}: "
            f"take the images out of it, or {others[0]} out of {root}"
        )
    return found


def _with_images(folder: Path) -> list[str]:
    """Return the folders in a folder that have images."""
    return [name for name in subfolders(folder) if has_images(folder / name)]


def _meant_part(name: str) -> str | None:
    """Return the part that a folder may be meant as: train, training_set, seg_test."""
    return next((PARTS[word] for word in re.split(r"[\W_]+", name.lower()) if word in PARTS), None)


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if names[1:] else names[0]
