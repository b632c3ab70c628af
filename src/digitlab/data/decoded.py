"""Decode the image files of a large folder once, into a file that batches are read from."""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import psutil
from tqdm import tqdm

from digitlab import REPOSITORY
from digitlab.data.on_disk import OnDisk, at_once
from digitlab.data.pictures import LARGEST, Pictures, Seen, decode, read_pictures, settle, to_gray, usual_size
from digitlab.data.reading import Reading
from digitlab.platform.disk import write_whole

READING = 3  # raise it with every change of what image files are read as
LARGEST_IN_MEMORY = 2**28  # bytes of pixels
ABOUT = {"of", "shape", "remarks", "reading", "digest"}
FOLDER = REPOSITORY / "data" / "decoded"


def read_decoded(
    root: Path, files: Sequence[Path], size: int | None, color: bool | None, reading: Reading | None = None
) -> Pictures:
    """Read image files below `root` as `read_pictures` does; where their pixels are many, from a file of them.

    It is in a folder of FOLDER, and is written at the first call. A call that was killed is continued by the next one.
    The file is written again where a name, a size or a time of the image files is another, or its own digest, or where
    what is said of it cannot be read. One of several processes writes it. Raises OSError for an image that cannot be
    read, ValueError where there is no room for so many of `size`.
    """
    if len(files) * (size or LARGEST) ** 2 * 3 <= LARGEST_IN_MEMORY:
        return read_pictures(files, (size, size) if size else None, color, reading)
    like = f" {reading.plain()}" if reading else ""
    asked = hashlib.sha256(os.fsencode(f"{root.resolve()} {size} {color}{like}")).hexdigest()[:12]
    folder = FOLDER / f"{root.resolve().name}-{asked}"
    if size and not folder.exists():
        _check_room(len(files), size)
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        of = _signature(root, files)
        about = _read_about(folder)
        if about.get("of") == of and _digest(folder / "pixels") != about["digest"]:
            warnings.warn(f"{folder / 'pixels'} is damaged; decoding the images again", stacklevel=2)
            about = {}
        if about.get("of") != of:
            about = _write(folder, files, size, color, reading, of)
        pixels = OnDisk.open(folder / "pixels", about["shape"])
        return Pictures(pixels, about["remarks"], Reading.kept(about["reading"]))


def _check_room(count: int, size: int) -> None:
    """Raise ValueError where memory does not hold one image, with what it is made of, or the disk all of them."""
    one = 3 * size**2
    disk = shutil.disk_usage(REPOSITORY).free
    for needed, there, said in (
        (4 * one, psutil.virtual_memory().total, "one image takes {} of memory"),
        (count * one, disk, f"{count:,} images take {{}} of the disk"),
    ):
        if needed > there:
            said = said.format(f"{needed / 1e9:,.0f} GB")
            raise ValueError(f"size={size}: {said} then, and there are {there / 1e9:,.0f} GB; give a smaller one")


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # which ends with the process, whatever becomes of it
        yield


def _signature(root: Path, files: Sequence[Path]) -> str:
    """Return a hash of what tells whether image files have changed, or how they are read."""
    content = hashlib.sha256(f"{READING} {PIL.__version__}".encode())
    for file in files:
        found = file.stat()
        content.update(os.fsencode(f"{file.relative_to(root)} {found.st_size} {found.st_mtime_ns}\n"))
    return content.hexdigest()


def _read_about(folder: Path) -> dict[str, Any]:
    """Return what is said of the decoded file; nothing where there is none, or that cannot be read."""
    with suppress(OSError, ValueError):
        about = json.loads((folder / "about.json").read_text())
        if isinstance(about, dict) and about.keys() == ABOUT and (folder / "pixels").is_file():
            return about
    return {}


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _write(
    folder: Path, files: Sequence[Path], size: int | None, color: bool | None, reading: Reading | None, of: str
) -> dict[str, Any]:
    """Decode the files into `folder`; what says that they are whole comes last."""
    part, gray, journal = folder / "pixels.part", folder / "gray.part", folder / "journal.part"
    (folder / "about.json").unlink(missing_ok=True)
    known, seen = _read_journal(journal, part, of)
    size = known or size or usual_size(files)
    if not known:
        part.write_bytes(b"")
    with journal.open("w") as begun:
        begun.write("".join(f"{json.dumps(each)}\n" for each in ({"of": of, "size": size}, seen)))
    shape = (len(files), size, size, 3)
    bar = tqdm(total=len(files), initial=len(seen), desc="decoding", unit="image", disable=not sys.stderr.isatty())
    with part.open("r+b") as pixels, journal.open("a") as done, bar:
        pixels.seek(len(seen) * size * size * 3)
        for some, of_them in decode(files[len(seen) :], (size, size)):
            pixels.write(some.data)
            _sync(pixels)
            done.write(json.dumps(of_them) + "\n")
            _sync(done)
            seen += of_them
            bar.update(len(of_them))
    whole = np.memmap(part, np.uint8, "r+", shape=shape)
    is_coloured, remarks, reading = settle(files, whole, seen, color, reading)
    whole.flush()
    if not is_coloured:
        with part.open("rb") as colours, gray.open("wb") as pixels:
            while some := colours.read(at_once(shape[1:]) * size * size * 3):
                pixels.write(to_gray(np.frombuffer(some, np.uint8).reshape(-1, size, size, 3)).data)
            _sync(pixels)
        shape = shape[:3]
    (part if is_coloured else gray).replace(folder / "pixels")
    about = {"of": of, "shape": shape, "remarks": remarks, "reading": reading.plain()}
    about["digest"] = _digest(folder / "pixels")
    write_whole(folder / "about.json", json.dumps(about).encode())
    for left in (part, journal):
        left.unlink(missing_ok=True)
    return about


def _read_journal(journal: Path, part: Path, of: str) -> tuple[int, list[Seen]]:
    """Return what a decoding of the same files that was killed had done, up to what cannot be read: size and images.

    The size is 0 where there was none.
    """
    size, seen = 0, []
    with suppress(OSError, ValueError, TypeError, KeyError):
        head, *lines = journal.read_text().splitlines()
        told = json.loads(head)
        size = told["size"] if told["of"] == of and part.is_file() else 0
        for line in lines if size else ():
            seen += [Seen(*each) for each in json.loads(line)]
    whole = part.stat().st_size // (size * size * 3) if size else 0
    return size, seen[:whole]


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
