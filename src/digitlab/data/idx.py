"""Read idx files, the format of MNIST's, packed or not."""

import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from digitlab.data.download import UnavailableError, ensure

UNREADABLE = (gzip.BadGzipFile, EOFError, zlib.error)
TYPES = {8: np.dtype(np.uint8), 12: np.dtype(">i4")}  # by the third byte of a file
# The md5 of what is packed in MNIST's and Fashion-MNIST's files, by that of the file: others pack it in other ways.
CONTENTS = {
    "f68b3c2dcbeaaa9fbdd348bbdeb94873": "6bbc9ace898e44ae57da46a324031adb",
    "d53e105ee54ea40749a09fcbcd1e9432": "a25bea736e30d166cdddb491f175f624",
    "9fb629c4189551a2d022fa330f9573f3": "2646ac647ad5339dbf082846283269ea",
    "ec29112dd5afa0611ce80d1b7f02629c": "27ae3e4e09519cfbb04c329615203637",
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "25c81989df183df01b3e8a0aad5dffbe": "9018921c3c673c538a1fc5bad174d6f9",
    "bef4ecab320f06d8554ea6380940ec79": "8181f5470baa50b63fa0f6fddb340f0a",
    "bb300cfdad3c16e7a12a480ee83cd310": "15d484375f8d13e6eb1aabb0c3f46965",
}


def fetch_idx(file: Path, md5: str, urls: Sequence[str]) -> Tensor:
    """Read the gzipped idx `file`, or where it is missing the unpacked one beside it; else download it.

    `md5` is that of the packed file. One that is packed in another way is taken for its content where that is known.
    An unpacked one whose content is not known is taken as it is, as torchvision does.

    Where the packed one is there and corrupt, an unpacked one of the known content is read.

    Raises UnavailableError where neither is there and it cannot be downloaded, OSError where one is corrupt and cannot
    be replaced, ValueError for an unpacked file that is not in the format.
    """
    content, plain = CONTENTS.get(md5), file.with_suffix("")
    if plain.exists():
        is_known = content is not None and _md5_within(plain) == content
        if is_known or (content is None and not file.exists()):
            return read_idx(plain)
    try:
        ensure(file, md5, urls, lambda: content is not None and _md5_within(file) == content)
    except UnavailableError as error:  # nothing to fall back on: somebody has put these images here
        if plain.exists():
            raise OSError(f"{plain} is corrupt (what it holds has another md5 than {content}), and {error}") from error
        raise
    return read_idx(file)


def read_idx(file: Path) -> Tensor:
    """Read an idx file of bytes or integers, gzipped or not: see `parse_idx`."""
    return parse_idx(file.read_bytes(), str(file))


def parse_idx(content: bytes, name: str) -> Tensor:
    """Return what an idx file holds, gzipped or not, as a uint8 or int32 tensor of the shape in its header.

    Format: http://yann.lecun.com/exdb/mnist. Raises ValueError, which says `name`, for anything else.
    """
    try:
        content = _unpack(content)
    except UNREADABLE as error:
        raise ValueError(f"{name} cannot be unpacked: {error}") from error
    if content[:2] != b"\0\0" or len(content) < 4 or content[2] not in TYPES:
        raise ValueError(f"{name} is not an idx file of bytes or integers")
    start = 4 + 4 * content[3]
    if not content[3] or len(content) < start:
        raise ValueError(f"{name} has a header of {content[3]} dimensions in {len(content)} bytes")
    shape = np.frombuffer(content[4:start], ">i4").tolist()
    kind = TYPES[content[2]]
    if len(content) - start != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{name} holds {len(content) - start} bytes where its header says {shape}")
    values = np.frombuffer(content, kind, offset=start)
    return torch.from_numpy(values.reshape(shape).astype(kind.newbyteorder("=")))


def _unpack(content: bytes) -> bytes:
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def _md5_within(file: Path) -> str:
    """Return the md5 of what a file holds unpacked; "" where it cannot be unpacked."""
    try:
        return hashlib.md5(_unpack(file.read_bytes()), usedforsecurity=False).hexdigest()
    except UNREADABLE:
        return ""
