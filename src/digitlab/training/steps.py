"""What the optimizer steps of an epoch came to."""

import torch
from torch import Tensor

RATE = "images_per_s"  # the last metric that an epoch writes: where it is stored, so are the others


class Steps:
    """Loss, number correct and images of each optimizer step of an epoch, on the device until they are asked for.

    `processes` share the batches.
    """

    def __init__(self, processes: int = 1) -> None:
        self.processes = processes
        self.taken: list[tuple[Tensor, list[int]]] = []

    def __bool__(self) -> bool:
        return bool(self.taken)

    def add(self, results: Tensor, sizes: list[int]) -> None:
        """Add the steps of a Lightning batch: mean loss and number correct of each, float32 (steps, 2).

        `sizes` are the images of each; a third column of `results` says how many the processes of a team had together.
        """
        self.taken.append((results, sizes))

    @property
    def images(self) -> int:
        """How many images this epoch has trained on so far, about, where processes share them."""
        return sum(sum(sizes) for _, sizes in self.taken) * self.processes

    def stack(self, count: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return loss, number correct and images of each step of the last `count` batches, or all: float64 (steps,)."""
        taken = self.taken[-count:] if count else self.taken
        losses, correct, *images = torch.cat([results for results, _ in taken]).double().cpu().T
        sizes = torch.tensor([size for _, sizes in taken for size in sizes], dtype=torch.float64)
        return losses, correct, images[0] if images else sizes

    def means(self, count: int | None = None) -> tuple[float, float]:
        """Return loss and accuracy over the last `count` Lightning batches, or over all of them."""
        losses, correct, sizes = self.stack(count)
        return float(losses @ sizes / sizes.sum()), float(correct.sum() / sizes.sum())
