"""Find without a GPU what a CUDA graph would get wrong: the step runs on `meta` tensors, which stand for the GPU's."""

from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from digitlab.training.cuda_graph import Graph


class CaptureError(AssertionError):
    """Something that cannot be captured, or that a replay would silently repeat with an old value."""


class LintedGraph(Graph):
    """Record the operations of a step in place of a capture, and compare in place of each replay.

    A replay repeats what was captured. So at each replay the step runs once more, and must do the same: the same
    operations with the same numbers on the same memory.
    """

    replays = 0

    def _run(self, tensors):
        with _Trace():
            return self.step(*tensors)

    def _record(self, tensors):
        graph = _Recorded(self, tensors)
        return graph, graph.result


class _Recorded:
    def __init__(self, of: LintedGraph, tensors: list[Tensor]):
        self.of, self.tensors = of, tensors
        with _Trace() as trace:
            self.result = of.step(*tensors)
        self.captured = trace.operations

    def replay(self) -> None:
        self.of.replays += 1
        if self.of.replays == 1:  # of what was captured just now
            return
        with _Trace() as trace:
            self.of.step(*self.tensors)
        for captured, wanted in zip_longest(self.captured, trace.operations):
            if captured != wanted:
                raise CaptureError(f"captured {captured}, but this step needs {wanted}")

    def reset(self) -> None:
        pass


class _Trace(TorchDispatchMode):
    """List operations: name, numbers, and the memory of tensors. Raise for what a stream under capture cannot do."""

    def __init__(self):
        super().__init__()
        self.operations: list[tuple] = []
        self.made: dict[int, int] = {}  # which operation made the memory; what is not here was there before
        self.alive: list[Any] = []  # so that no address is used twice
        if torch.is_autocast_enabled("cpu") and torch.is_autocast_cache_enabled():
            raise CaptureError("autocast keeps its casts: a replay would compute with the old weights")

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if operation.namespace == "profiler":
            return operation(*args, **kwargs)
        if "_local_scalar_dense" in str(operation) or "nonzero" in str(operation):
            raise CaptureError(f"{operation} waits for the GPU")
        leaves = tree_leaves((args, kwargs))
        self._refuse_host(operation, leaves)
        arguments = tuple(self._describe(leaf) for leaf in leaves)
        # What returns nothing writes in place, where meta tensors have nothing to be written; not all have a meta form.
        result = operation(*args, **kwargs) if operation._schema.returns else None
        self._refuse_host(operation, tree_leaves(result))
        self.operations.append((str(operation), *arguments))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and not any(tensor is leaf for leaf in leaves):
                self.made.setdefault(_memory(tensor), len(self.operations))
        self.alive.append((leaves, result))
        return result

    def _refuse_host(self, operation, leaves: list) -> None:
        for leaf in leaves:
            if isinstance(leaf, Tensor) and leaf.device.type != "meta":
                raise CaptureError(f"{operation} touches a tensor of the CPU, of which a graph keeps the value")

    def _describe(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        memory = _memory(leaf)
        where = self.made.get(memory, hex(memory))
        return where, tuple(leaf.shape), leaf.stride(), leaf.storage_offset(), leaf.dtype


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
