"""Iterate over a split that lies on one device, in an order that is a function of (seed, epoch)."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from digitlab.data.augment import Augment
from digitlab.data.preprocess import Preprocess
from digitlab.data.sources import Pairs, StoredPairs


class EpochOrder:
    """Draw an order of `length` images for each epoch, as a function of (seed, epoch) alone.

    Each call of `draw` goes on to the next epoch; `set_epoch` goes to any.
    """

    def __init__(self, length: int, seed: int):
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Continue with `epoch`. Lightning calls this before each epoch."""
        self.epoch = epoch

    def draw(self) -> Tensor:
        """Return the next epoch's permutation, int64 (length,)."""
        words = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1, np.uint64)
        self.epoch += 1
        return torch.randperm(self.length, generator=torch.Generator().manual_seed(int(words[0] >> 1)))


class Batches:
    """Iterate over a split in batches of (images, labels): float32 (B, C, H, W) and int64 (B,), on the split's device.

    `split` is uint8 images (N, H, W) or (N, H, W, C) with int64 labels (N,). Images come in the `order` of each epoch,
    or as they lie without one; the last batch may be smaller, and a last image by itself comes in the batch before it
    where `joins_last`; with `drop_last` a smaller one is left out.
    `share` is (rank, count): of each batch only the rank-th of so many parts, whose sizes differ by one at most.
    """

    def __init__(
        self,
        split: StoredPairs,
        preprocess: Preprocess,
        batch_size: int,
        order: EpochOrder | None = None,
        augment: Augment | None = None,
        joins_last: bool = False,
        drop_last: bool = False,
        share: tuple[int, int] = (0, 1),
    ):
        self.images, self.labels = split
        self.preprocess, self.batch_size = preprocess.to(self.labels.device), batch_size
        self.joins_last = joins_last and len(self.labels) > batch_size > 1 == len(self.labels) % batch_size
        self.drop_last = drop_last and len(self.labels) > batch_size
        self.augment = augment or Augment()
        self.share = share
        self.sampler, self.batch_sampler = order, None  # where Lightning looks for set_epoch

    def __len__(self) -> int:
        whole, rest = divmod(len(self.labels), self.batch_size)
        return whole + bool(rest and not (self.joins_last or self.drop_last))

    def __iter__(self) -> Iterator[Pairs]:
        for rows in map(self._own, self._rows()):
            images = self.preprocess(self.augment.stored(self.images[rows]))
            yield self.augment.input(images), self.labels[rows]

    def _rows(self) -> Iterable[Tensor | slice]:
        # Draw at the first batch, not when the iterator is made: Lightning sets the epoch in between.
        if self.sampler:
            rows = self.sampler.draw().to(self.labels.device).split(self.batch_size)
            return (*rows[:-2], torch.cat(rows[-2:])) if self.joins_last else rows[: len(self)]
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        rows = [slice(start, start + self.batch_size) for start in starts]
        if self.joins_last:
            rows[-1] = slice(rows[-1].start, None)
        return rows

    def _own(self, rows: Tensor | slice) -> Tensor | slice:
        rank, count = self.share
        if count == 1:
            return rows
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self.labels)), device=self.labels.device)
        return rows.tensor_split(count)[rank]


class Chunk:
    """Successive batches that a training loop takes as one; each is made when it is needed, and so is in the cache."""

    def __init__(self, batches: Iterator[Pairs], count: int):
        self.batches, self.count = batches, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Pairs]:
        return islice(self.batches, self.count)


class Chunks:
    """Iterate over the batches of a loader in chunks of up to `steps`; use up each chunk before the next."""

    def __init__(self, loader: Batches, steps: int):
        self.loader, self.steps = loader, steps
        self.sampler, self.batch_sampler = loader.sampler, None

    def __len__(self) -> int:
        return math.ceil(len(self.loader) / self.steps)

    def __iter__(self) -> Iterator[Chunk]:
        batches = iter(self.loader)
        for taken in range(0, len(self.loader), self.steps):
            yield Chunk(batches, min(self.steps, len(self.loader) - taken))


def images_of(loader: Iterable[Pairs | Chunk], device: torch.device) -> Iterator[Tensor]:
    """Yield the images of each batch of a loader, of those in chunks too, on `device`."""
    for batch in loader:
        for images, _ in batch if isinstance(batch, Chunk) else [batch]:
            yield images.to(device)
