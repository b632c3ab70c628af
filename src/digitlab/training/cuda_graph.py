"""Replay a whole training step on a GPU: one launch in place of some hundred."""

import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.optim import Optimizer

DEVICE = "cuda"  # the type of device whose work can be captured
WARM_UP = 3  # plain steps before a capture: they create the optimizer's state and let the libraries choose


class Graph:
    """Call `step`, a function of tensors that trains with `optimizer` on a GPU, as CUDA graphs, one a shape of input.

    A shape that comes more than WARM_UP times in a row is captured, and from then on each call with it is a replay.
    Others run plainly, as the smaller batch that ends an epoch: replaying it saves less than its capture costs.
    Numbers of the optimizer that are not tensors are part of a graph: when one changes, all graphs are made anew.
    What `step` returns is valid until the next call. Source: PyTorch's notes on CUDA graphs.
    """

    def __init__(self, step: Callable[..., Tensor], optimizer: Optimizer):
        self.step, self.optimizer = step, optimizer
        self.captured: dict[tuple, Captured] = {}
        self.close()

    def __call__(self, *tensors: Tensor) -> Tensor:
        constants = _constants(self.optimizer)
        if constants != self.constants:
            self.close()
            self.constants = constants
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        self.repeats = self.repeats + 1 if shapes == self.shapes else 1
        self.shapes = shapes
        if shapes not in self.captured:
            if self.repeats <= WARM_UP:
                return self._run(tensors)
            self.captured[shapes] = Captured(self._record, tensors)
        return self.captured[shapes].replay(tensors)

    def close(self) -> None:
        """Give the graphs' memory back; what is called later is captured anew."""
        for each in self.captured.values():
            each.close()
        self.captured.clear()
        self.constants, self.shapes, self.repeats = None, (), 0

    def _run(self, tensors: tuple[Tensor, ...]) -> Tensor:
        current = torch.cuda.current_stream()
        _stream().wait_stream(current)
        with torch.cuda.stream(_stream()):
            result = self.step(*tensors)
        current.wait_stream(_stream())
        return result

    def _record(self, tensors: list[Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=_stream(), capture_error_mode="thread_local"):
            result = self.step(*tensors)
        return graph, result


class Captured:
    """A graph with the tensors that it reads and the one that it writes."""

    def __init__(self, record: Callable, tensors: tuple[Tensor, ...]):
        self.inputs = [tensor.clone() for tensor in tensors]
        self.graph, self.result = record(self.inputs)

    def replay(self, tensors: tuple[Tensor, ...]) -> Tensor:
        for own, tensor in zip(self.inputs, tensors, strict=True):
            own.copy_(tensor)
        self.graph.replay()
        return self.result

    def close(self) -> None:
        torch.cuda.synchronize()
        self.graph.reset()


@cache
def _stream() -> torch.cuda.Stream:
    """Return the stream that every graph of this process warms up and is captured on.

    cuBLAS keeps a workspace of up to 32 MiB for each stream it ever ran on: one stream, one workspace. It comes from
    the warm-up, so that it outlives the graphs that use it.
    """
    return torch.cuda.Stream()


def make_capturable(optimizer: Optimizer, moves: bool, is_scaled: bool = False) -> bool:
    """Prepare an optimizer whose weights are on a GPU for capture; return whether its steps can be captured at all.

    Where its learning rate `moves`, it becomes a tensor: a graph keeps a number as it was when it was captured. All
    tensors go to the weights' device: a checkpoint brings them back to the CPU, where a graph reads them but once.
    A fused one leaves out a step by itself where gradients that are scaled overflow; for others the host looks at them.
    Warns of an optimizer that cannot be captured.
    """
    device = optimizer.param_groups[0]["params"][0].device
    if device.type != DEVICE:
        return False
    for group in optimizer.param_groups:
        if "capturable" in group and (group.get("fused") or not is_scaled):
            group["capturable"] = True
        elif not group.get("fused"):
            cure = "; optim.fused=true lets them" if "fused" in group else ""
            name = type(optimizer).__name__
            warnings.warn(f"steps of {name} cannot be replayed as a CUDA graph, so they are slower{cure}", stacklevel=2)
            return False
        if moves:
            group["lr"] = torch.as_tensor(group["lr"])
    for values in (*optimizer.param_groups, *optimizer.state.values()):
        values.update({key: value.to(device) for key, value in values.items() if isinstance(value, Tensor)})
    return True


def _constants(optimizer: Optimizer) -> list:
    values = [value for group in optimizer.param_groups for value in group.values()]
    return [value for value in values if not isinstance(value, Tensor | list)]
