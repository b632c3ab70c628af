"""Images that stay in a file and are read when they are asked for."""

import math
from collections.abc import Sequence
from mmap import ACCESS_READ, MADV_DONTNEED, mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

AT_ONCE = 2**23  # bytes of images that are read from a file, or into larger numbers, at once
CPU = torch.device("cpu")


class OnDisk:
    """Stand for a uint8 tensor of images, (N, H, W) or (N, H, W, 3), that memory may not hold.

    An index reads its rows, as that of a tensor gives them; `subset` chooses rows and reads none. What is read comes to
    `device`.
    """

    def __init__(self, mapped: mmap, whole: Sequence[int], rows: Tensor, device: torch.device = CPU):
        """Read from a `mapped` file of bytes, of which `whole` is the shape, the images at `rows`."""
        self.mapped, self.whole, self.rows, self.device = mapped, tuple(whole), rows, device
        self.shape, self.ndim, self.dtype = torch.Size([len(rows), *whole[1:]]), len(whole), torch.uint8

    @classmethod
    def open(cls, file: Path, shape: Sequence[int]) -> "OnDisk":
        """Open a file of bytes; it may be replaced afterwards."""
        with file.open("rb") as content:
            return cls(mmap(content.fileno(), 0, access=ACCESS_READ), shape, torch.arange(shape[0]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Tensor:
        rows = self.rows[index.cpu() if isinstance(index, Tensor) else index]
        pixels = torch.from_numpy(np.frombuffer(self.mapped, np.uint8).reshape(self.whole)[rows.numpy()])
        self.mapped.madvise(MADV_DONTNEED)  # what was read would count as memory of the process
        return pixels.to(self.device)

    def subset(self, index: Any) -> "OnDisk":
        return OnDisk(self.mapped, self.whole, self.rows[index], self.device)

    def to(self, device: torch.device) -> "OnDisk":
        return OnDisk(self.mapped, self.whole, self.rows, device)

    def cpu(self) -> Tensor:
        """Read all images."""
        return self.to(CPU)[:]

    def numpy(self) -> np.ndarray:
        """Read all images."""
        return self.cpu().numpy()

    def numel(self) -> int:
        return self.shape.numel()


Stored = Tensor | OnDisk  # images, uint8 (N, H, W) or (N, H, W, 3)


def choose(images: Stored, index: Any) -> Stored:
    """Return the images at `index`, without reading those that are on disk."""
    return images.subset(index) if isinstance(images, OnDisk) else images[index]


def at_once(shape: Sequence[int]) -> int:
    """Return how many images of that shape are taken at once."""
    return max(1, AT_ONCE // max(1, math.prod(shape)))
