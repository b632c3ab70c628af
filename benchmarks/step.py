"""Time one training step of every small network: ours against stock PyTorch's, and against the CPU's own limit.

Stock is what the tutorials' code becomes in PyTorch: NCHW, ReLU before pooling, nn.Dropout, Adam as it comes.
python benchmarks/step.py [rounds] [seconds a case and round]
"""

import statistics
import sys
from math import exp, log
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from measure import in_turn, ratio, seconds, show, verdict  # first: it puts src on the path
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from digitlab import machine
from digitlab.networks import ConvNet

ROOT = Path(__file__).parents[1]
SMALL = ("mlp", "cnn_simple", "cnn_pool", "cnn_single_5x5", "cnn_dense1000", "cnn_double_3x3", "cnn_double_5x5")
BATCH = 128
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 7
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 0.5


def layers(name: str) -> dict:
    node = yaml.safe_load((ROOT / "conf" / "model" / f"{name}.yaml").read_text())
    return {"blocks": node.get("blocks", []), "hidden": node.get("hidden", [])}


def stock(blocks: list[dict], hidden: list[dict]) -> nn.Sequential:
    """Build the same network as a tutorial's reader would."""
    parts, channels, size = [], 1, 28
    for block in blocks:
        kernel, pool = block.get("kernel", 3), block.get("pool", 1)
        parts += [nn.Conv2d(channels, block["channels"], kernel), nn.ReLU()]
        channels, size = block["channels"], size - kernel + 1
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


def timed(step):
    """Repeat a step for about SECONDS; the repeats are fixed by a first look."""
    repeats = max(3, round(SECONDS / min(seconds(step) for _ in range(5))))
    return lambda: seconds(step, repeats)


def flops(name: str) -> int:
    """Count the floating-point operations of a stock step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(stock(**layers(name))(torch.rand(BATCH, 1, 28, 28)), torch.randint(10, (BATCH,))).backward()
    return counter.get_total_flops()


def peak(kind: torch.dtype):
    """Return a case that times a large convolution, and its operations: what this CPU can do at best."""
    layer = nn.Conv2d(256, 256, 3).to(kind, memory_format=torch.channels_last)
    images = torch.randn(32, 256, 28, 28).to(kind).contiguous(memory_format=torch.channels_last)

    def convolve() -> None:
        with torch.no_grad():
            layer(images)

    return timed(convolve), 2 * 32 * 26 * 26 * 256 * 256 * 9


def main() -> None:
    torch.manual_seed(0)
    rows, ratios = [], {False: [], True: []}
    for name in SMALL:
        cases, limits = {}, {}
        for is_bf16 in (False, True):
            kind = "bf16" if is_bf16 else "fp32"
            theirs, ours = stock(**layers(name)), ConvNet(**layers(name))
            cases[f"stock {kind}"] = timed(stepper(theirs, torch.optim.Adam(theirs.parameters()), is_bf16))
            cases[f"ours {kind}"] = timed(stepper(ours, torch.optim.Adam(ours.parameters(), fused=True), is_bf16))
            cases[f"peak {kind}"], limits[kind] = peak(torch.bfloat16 if is_bf16 else torch.float32)
        values = in_turn(cases, ROUNDS)
        work = flops(name)
        for kind in ("fp32", "bf16"):
            ours, theirs = values[f"ours {kind}"], values[f"stock {kind}"]
            ratios[kind == "bf16"].append(ratio(ours, theirs)[0])
            best = limits[kind] / statistics.median(values[f"peak {kind}"])
            shares = [work / statistics.median(each) / best for each in (theirs, ours)]
            rows.append(
                [name, kind, f"{statistics.median(theirs) * 1e3:.1f}", f"{statistics.median(ours) * 1e3:.1f}",
                 verdict(ours, theirs), f"{shares[0]:.0%}", f"{shares[1]:.0%}", f"{best / 1e9:.0f}"]
            )  # fmt: skip
    for is_bf16, each in ratios.items():
        mean = exp(sum(map(log, each)) / len(each))
        rows.append(["geometric mean", "bf16" if is_bf16 else "fp32", "", "", f"{mean:.2f}", "", "", ""])
    show(
        f"One training step, batch {BATCH}, n = {ROUNDS} rounds in turn",
        ["network", "precision", "stock ms", "ours ms", "ours / stock", "stock: share of peak", "ours: share of peak",
         "peak GFLOP/s"],
        rows,
    )  # fmt: skip


if __name__ == "__main__":
    if "--stock-memory" not in sys.argv:
        machine.keep_memory()
    main()
