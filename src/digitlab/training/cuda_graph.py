"""Replay a whole training step on a GPU: one launch in place of some hundred."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

WARM_UP = 3  # plain steps before the capture: they create the optimizer's state and let the libraries choose


class Graph:
    """Call `step`, a function of one tensor that trains a network on a GPU, as a CUDA graph; other shapes run plainly.

    The first calls run plainly; the next is captured, and every later one with a tensor of that shape is a replay.
    What `step` returns is valid until the next call. Source: PyTorch's notes on CUDA graphs.
    """

    def __init__(self, step: Callable[[Tensor], Tensor]):
        self.step, self.calls = step, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream = torch.cuda.Stream()

    def __call__(self, rows: Tensor) -> Tensor:
        if self.graph is None and self.calls < WARM_UP:
            self.calls += 1
            return self._on_own_stream(rows)
        if self.graph is None:
            self._capture(rows)
        if rows.shape != self.rows.shape:
            return self.step(rows)
        self.rows.copy_(rows)
        self.graph.replay()
        return self.result

    def close(self) -> None:
        """Give the graph's memory back."""
        if self.graph is not None:
            torch.cuda.synchronize()
            self.graph.reset()
            self.graph = self.result = None

    def _on_own_stream(self, rows: Tensor) -> Tensor:
        current = torch.cuda.current_stream()
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = self.step(rows)
        current.wait_stream(self.stream)
        return result

    def _capture(self, rows: Tensor) -> None:
        self.rows = rows.clone()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
            self.result = self.step(self.rows)


def make_capturable(optimizer: Optimizer, moves: bool) -> bool:
    """Prepare an optimizer whose weights are on a GPU for capture; return whether it can be captured at all.

    Where its learning rate `moves`, it becomes a tensor: a graph would keep the number it was captured with.
    """
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
        elif not group.get("fused"):  # SGD that is not fused reads its learning rate on the CPU
            return False
        if moves and not isinstance(group["lr"], Tensor):
            group["lr"] = torch.tensor(group["lr"], device=group["params"][0].device)
    return True
