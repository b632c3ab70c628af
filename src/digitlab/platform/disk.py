"""Files and folders on this machine's disk."""

import shutil
from pathlib import Path


def keep_only(folder: Path, name: str) -> None:
    """Remove all that is in `folder` but what has that name. A link is removed, not what it leads to."""
    for each in folder.iterdir():
        if each.name == name:
            continue
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()
