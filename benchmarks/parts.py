"""Time what a step may have besides: padding, batch norm, an average of the weights, metrics, bfloat16 throughout.

Ours stands against PyTorch's and torchmetrics' own as they come, each in a process of its own, as in step.py.
PYTHONPATH=src python benchmarks/parts.py [rounds] [seconds a case and round]
"""

import multiprocessing
import statistics
from collections.abc import Callable
from functools import cache, partial

import torch
from measure import in_turn, layers, seconds, show, verdict
from step import BATCH, ROUNDS, SECONDS, stepper, stock
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import classification

from digitlab.models.bfloat16 import compute_in_bfloat16
from digitlab.models.networks import ConvNet
from digitlab.platform import machine
from digitlab.training.averaging import Average
from digitlab.training.metrics import named_metric

NETWORK, LARGE, CLASSES = "cnn_pool", "cnn_dense1000", 10
DECAY = 0.999
METRICS = {
    "f1_macro": classification.MulticlassF1Score,
    "mcc": classification.MulticlassMatthewsCorrCoef,
    "ece": classification.MulticlassCalibrationError,
}


def trained(who: str, **changes) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a network whose blocks are changed so, and its optimizer."""
    told = layers(NETWORK)
    told["blocks"] = [block | changes for block in told["blocks"]]
    network = ConvNet(**told) if who == "ours" else stock(**told)
    return network, torch.optim.Adam(network.parameters(), fused=who == "ours")


def changed(who: str, **changes) -> Callable[[], object]:
    return stepper(*trained(who, **changes), is_bf16=False)


def averaged(who: str) -> Callable[[], object]:
    """Return the averaging after a step, of weights of the same network."""
    network = ConvNet(**layers(LARGE))
    if who == "ours":
        average = Average("ema", DECAY)
        average.follow(network)
        return average.end_step
    model = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    return lambda: model.update_parameters(network)


def measured(who: str) -> Callable[[], object]:
    """Return an update of metrics by the probabilities of a batch."""
    probabilities, labels = torch.rand(BATCH, CLASSES).softmax(1), torch.randint(CLASSES, (BATCH,))
    made = [named_metric(name, CLASSES) if who == "ours" else kind(CLASSES) for name, kind in METRICS.items()]
    return lambda: [metric.update(probabilities, labels) for metric in made]


def half(who: str) -> Callable[[], object]:
    network, _ = trained(who)
    if who == "ours":
        compute_in_bfloat16(network)
    else:
        network = nn.Sequential(_Narrow(), network.bfloat16())
    return stepper(network, torch.optim.Adam(network.parameters(), fused=who == "ours"), is_bf16=False)


class _Narrow(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.bfloat16()


CASES = {
    f"step of {NETWORK}, padding=same": partial(changed, padding="same"),
    f"step of {NETWORK}, batch_norm=before": partial(changed, batch_norm="before"),
    f"averaging.kind=ema of {LARGE}, of a step": averaged,
    f"metrics=[{','.join(METRICS)}] of a batch": measured,
} | ({f"step of {NETWORK}, bf16-true": half} if machine.computes_in_bf16("cpu") else {})


@cache
def case(who: str, name: str) -> Callable[[], float]:
    """Return a function that repeats a case for about SECONDS and gives the seconds of one."""
    torch.manual_seed(0)
    call = CASES[name](who)
    repeats = max(3, round(SECONDS / min(seconds(call) for _ in range(5))))
    return lambda: seconds(call, repeats)


def measure(who: str, name: str) -> float:
    return case(who, name)()


def main() -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as as_it_comes, context.Pool(1, initializer=machine.disable_malloc_trim) as kept:
        pools, rows = {"stock": as_it_comes, "ours": kept}, []
        for name in CASES:
            keys = {who: partial(pool.apply, measure, (who, name)) for who, pool in pools.items()}
            values = in_turn(keys, ROUNDS)
            times = [f"{statistics.median(values[who]) * 1e3:.2f}" for who in pools]
            rows.append([name, *times, verdict(values["ours"], values["stock"])])
    show(
        f"What a step may have besides, batch {BATCH}, n = {ROUNDS} rounds in turn",
        ["what", "stock ms", "ours ms", "ours / stock"],
        rows,
    )


if __name__ == "__main__":
    main()
