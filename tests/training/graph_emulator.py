"""Run a training step as a CUDA graph would, on a CPU: its operations are recorded once, then replayed."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from digitlab.training.cuda_graph import Graph


class EmulatedGraph(Graph):
    """Replay a step's operations on the memory that they were recorded on; no Python of the step runs again."""

    replays = 0

    def _run(self, tensors):
        return self.step(*tensors)

    def _record(self, tensors):
        recording = _Recording()
        noise = torch.get_rng_state()
        with recording:
            result = self.step(*tensors)
        torch.set_rng_state(noise)
        recording.undo()  # a capture computes nothing
        return _Recorded(recording.operations), result


class HostTensor(Tensor):
    """A tensor of the CPU, where all others stand for the GPU's: of this a graph keeps the value."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    def to(self, *_, **__) -> Tensor:
        return self.as_subclass(Tensor).clone()

    def __deepcopy__(self, memo: dict) -> "HostTensor":
        return self.to().as_subclass(HostTensor)


class _Recorded:
    def __init__(self, operations: list[tuple]):
        self.operations = operations

    def replay(self) -> None:
        EmulatedGraph.replays += 1
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for operation, args, kwargs, outputs in self.operations:
                results = tree_leaves(operation(*args, **kwargs))
                for own, new in zip(outputs, results, strict=True):
                    if isinstance(own, Tensor) and own.data_ptr() != new.data_ptr():
                        own.copy_(new)

    def reset(self) -> None:
        self.operations = []


class _Recording(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations: list[tuple] = []
        self.before: dict[int, tuple[Tensor, Tensor | None]] = {}  # by memory: bytes, and a copy unless made here

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if operation.namespace == "profiler":
            return operation(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if tensors and all(isinstance(tensor, HostTensor) for tensor in tensors):
            return tree_map(_on_host, operation(*args, **kwargs))
        args, kwargs = tree_map(_keep_value, (args, kwargs))
        for tensor in tensors:
            self._remember(tensor, is_made=False)
        result = operation(*args, **kwargs)
        outputs = tree_leaves(result)
        for output in outputs:
            if isinstance(output, Tensor):
                self._remember(output, is_made=True)
        self.operations.append((operation, args, kwargs, outputs))
        return result

    def undo(self) -> None:
        for memory, copy in self.before.values():
            if copy is not None:
                memory.copy_(copy)

    def _remember(self, tensor: Tensor, is_made: bool) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.before:
            self.before[storage._cdata] = storage, None if is_made else storage.clone()


def _on_host(leaf):
    return leaf.as_subclass(HostTensor) if isinstance(leaf, Tensor) else leaf


def _keep_value(leaf):
    return leaf.as_subclass(Tensor).clone() if isinstance(leaf, HostTensor) else leaf
