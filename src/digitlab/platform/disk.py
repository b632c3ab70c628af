"""Files and folders on this machine's disk."""

import os
import shutil
from contextlib import suppress
from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Write a file whole or not at all: until all of it is on the disk, what was there stays."""
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("wb") as written:
            written.write(content)
            written.flush()
            os.fsync(written.fileno())
        part.replace(file)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def keep_only(folder: Path, name: str) -> None:
    """Remove all that is in `folder` but what has that name. A link is removed, not what it leads to."""
    for each in folder.iterdir():
        if each.name == name:
            continue
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()
