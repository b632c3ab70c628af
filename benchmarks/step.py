"""Time one training step of every small network: ours against stock PyTorch's, and against the CPU's own limit.

Stock is what the tutorials' code becomes in PyTorch: NCHW, ReLU before pooling, nn.Dropout, Adam and malloc as they
come. It has a process of its own, since ours changes malloc's.
PYTHONPATH=src python benchmarks/step.py [rounds] [seconds a case and round]
"""

import multiprocessing
import statistics
import sys
from functools import cache, partial
from math import exp, log

import torch
import torch.nn.functional as F
from measure import MODELS, in_turn, layers, ratio, seconds, show, verdict
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from digitlab.models.networks import ConvNet
from digitlab.platform import machine

BATCH = 128
KINDS = {False: "fp32"} | ({True: "bf16"} if machine.computes_in_bf16("cpu") else {})  # elsewhere it is emulated
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 7
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 0.5


def stock(blocks: list[dict], hidden: list[dict]) -> nn.Sequential:
    """Build the same network as a tutorial's reader would."""
    parts, channels, size = [], 1, 28
    for block in blocks:
        kernel, pool = block.get("kernel", 3), block.get("pool", 1)
        padding, channels_before, channels = block.get("padding", 0), channels, block["channels"]
        parts += [nn.Conv2d(channels_before, channels, kernel, padding=padding)]
        parts += [nn.BatchNorm2d(channels), nn.ReLU()] if block.get("batch_norm") == "before" else [nn.ReLU()]
        size = size if padding == "same" else size + 2 * padding - kernel + 1
        if pool > 1:
            parts, size = [*parts, nn.MaxPool2d(pool)], size // pool
        parts += [nn.Dropout(block["dropout"])] if block.get("dropout") else []
    parts, units = [*parts, nn.Flatten()], channels * size * size
    for layer in hidden:
        parts += [nn.Linear(units, layer["units"]), nn.ReLU()]
        parts += [nn.Dropout(layer["dropout"])] if layer.get("dropout") else []
        units = layer["units"]
    return nn.Sequential(*parts, nn.Linear(units, 10))


def stepper(network: nn.Module, optimizer: torch.optim.Optimizer, is_bf16: bool):
    images, labels = torch.rand(BATCH, 1, 28, 28), torch.randint(10, (BATCH,))

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16, cache_enabled=False):
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()

    return step


@cache
def case(who: str, name: str, is_bf16: bool):
    """Return a function that repeats a step for about SECONDS and gives the seconds of one."""
    torch.manual_seed(0)
    if who == "peak":
        step = convolution(torch.bfloat16 if is_bf16 else torch.float32)
    elif who == "ours":
        network = ConvNet(**layers(name))
        step = stepper(network, torch.optim.Adam(network.parameters(), fused=True), is_bf16)
    else:
        network = stock(**layers(name))
        step = stepper(network, torch.optim.Adam(network.parameters()), is_bf16)
    repeats = max(3, round(SECONDS / min(seconds(step) for _ in range(5))))
    return lambda: seconds(step, repeats)


def measure(who: str, name: str, is_bf16: bool) -> float:
    return case(who, name, is_bf16)()


def flops(name: str) -> int:
    """Count the floating-point operations of a stock step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(stock(**layers(name))(torch.rand(BATCH, 1, 28, 28)), torch.randint(10, (BATCH,))).backward()
    return counter.get_total_flops()


PEAK_FLOPS = 2 * 32 * 26 * 26 * 256 * 256 * 9


def convolution(kind: torch.dtype):
    """Return a large convolution: what this CPU can do at best."""
    layer = nn.Conv2d(256, 256, 3).to(kind, memory_format=torch.channels_last)
    images = torch.randn(32, 256, 28, 28).to(kind).contiguous(memory_format=torch.channels_last)
    return torch.no_grad()(lambda: layer(images))


def main() -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as as_it_comes, context.Pool(1, initializer=machine.disable_malloc_trim) as kept:
        pools = {"stock": as_it_comes, "ours": kept, "peak": kept}
        rows: list[list[str]] = []
        ratios: dict[bool, list[float]] = {is_bf16: [] for is_bf16 in KINDS}
        for name in MODELS:
            keys = [(who, name, is_bf16) for is_bf16 in ratios for who in pools]
            values = in_turn({key: partial(pools[key[0]].apply, measure, key) for key in keys}, ROUNDS)
            work = flops(name)
            for is_bf16 in ratios:
                theirs, ours, peak = (values[who, name, is_bf16] for who in pools)
                ratios[is_bf16].append(ratio(ours, theirs)[0])
                best = PEAK_FLOPS / statistics.median(peak)
                shares = [f"{work / statistics.median(each) / best:.0%}" for each in (theirs, ours)]
                times = [f"{statistics.median(each) * 1e3:.1f}" for each in (theirs, ours)]
                rows.append(
                    [name, KINDS[is_bf16], *times, verdict(ours, theirs), *shares, f"{best / 1e9:.0f}"],
                )
    for is_bf16, each in ratios.items():
        mean = exp(sum(map(log, each)) / len(each))
        rows.append(["geometric mean", KINDS[is_bf16], "", "", f"{mean:.2f}", "", "", ""])
    show(
        f"One training step, batch {BATCH}, n = {ROUNDS} rounds in turn",
        ["network", "precision", "stock ms", "ours ms", "ours / stock", "stock: share of peak", "ours: share of peak",
         "peak GFLOP/s"],
        rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()
