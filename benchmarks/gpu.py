"""Measure the GPU's side: ours against a loop by hand in a CUDA graph and against the stock pipeline, and the limit.

First replays are compared with plain steps, for every optimizer; where a bit differs, no time is taken. A fit's time
is taken apart: what it costs once (start, warm-up, capture) and what each epoch adds, the smaller last batch included.
Without a GPU the same is run to its end on the CPU, small, and "not measured" is printed.
PYTHONPATH=src python benchmarks/gpu.py [rounds] [part ...], with the parts of PARTS; all of them by default.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from unittest import mock

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from measure import DATA, in_turn, layers, python, seconds, show, unpack_mnist, verdict
from mlflow import MlflowClient
from omegaconf import OmegaConf
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms

from digitlab import REPOSITORY
from digitlab.data.datamodule import ImageData
from digitlab.data.sources import mnist5k, torchvision_mnist
from digitlab.models.networks import ConvNet
from digitlab.platform import console, machine
from digitlab.training import classifier as training
from digitlab.training.checkpoint import ReseedEveryEpoch
from digitlab.training.classifier import Classifier

HAS_GPU = torch.cuda.is_available()
DEVICE, PRECISION, NETWORK = ("cuda", "bf16-mixed", "cnn_pool") if HAS_GPU else ("cpu", "32-true", "mlp")
DEVICE_NAME = f"GPU: {torch.cuda.get_device_name()}" if HAS_GPU else "GPU: none"
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5 if HAS_GPU else 1
BATCH, EPOCHS, RUNS = 128, 14, 40
PARTS = {
    "equal": "replays equal plain steps",
    "memory": f"memory over {RUNS} runs",
    "times": "a fit and an epoch: ours / by hand, ours / stock",
    "peak": "cnn_wide, share of the bf16 peak",
    "speedrun": "claim=speedrun",
    "grid": "sweep=grid_full sweep.seeds=3",
}
OPTIMIZERS = sorted(file.stem for file in (REPOSITORY / "conf" / "optim").glob("*.yaml"))
QUIET = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}


def wait() -> float:
    """Wait for the device; return the time."""
    if HAS_GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock(pl.Callback):
    """Note when each epoch ends."""

    def __init__(self):
        self.ends = [wait()]

    def on_train_epoch_end(self, *_) -> None:
        self.ends.append(wait())


def apart(ends: list[float], end: float) -> tuple[float, float]:
    """Return what a fit costs once and what each epoch adds, in seconds, of the times of its start, epochs and end.

    The first two epochs count to the former: there is the warm-up in them, and the first choice of algorithms.
    """
    epochs = len(ends) - 1
    slope = (ends[-1] - ends[2]) / (epochs - 2)
    return end - ends[0] - epochs * slope, slope


def trainer(epochs: int, *callbacks: pl.Callback, **settings) -> pl.Trainer:
    return pl.Trainer(accelerator="gpu" if HAS_GPU else "cpu", devices=1, max_epochs=epochs, limit_val_batches=0,
                      callbacks=list(callbacks), **QUIET, **settings)  # fmt: skip


def fit(module: pl.LightningModule, data) -> tuple[float, float]:
    clock = Clock()
    trainer(EPOCHS, clock, precision=PRECISION).fit(module, data)
    return apart(clock.ends, wait())


def classifier(name: str, optim: str = "adam", steps: int = 0, clip: float | None = None) -> Classifier:
    """Build a network of ours with an optimizer; with `steps`, the learning rate falls to 0 over so many."""
    torch.manual_seed(0)
    network = ConvNet(**layers(name))
    node = OmegaConf.load(REPOSITORY / "conf" / "optim" / f"{optim}.yaml")
    optimizer = instantiate(node, _convert_="all")(network.parameters())  # plain lists, as a checkpoint may hold
    return Classifier(network, optimizer, CosineAnnealingLR(optimizer, steps) if steps else None, clip=clip)


def by_hand(data: ImageData, name: str) -> tuple[float, float]:
    """Time a loop by hand: data on the device, the whole step in one graph, the smaller last batch without one."""
    network = classifier(name).network
    ends = [wait()]
    network.to(DEVICE).train()
    optimizer = torch.optim.Adam(network.parameters(), eps=1e-7, fused=True, capturable=HAS_GPU)
    pixels, labels = (tensor.to(DEVICE) for tensor in data.splits["train"])
    rows = torch.zeros(BATCH, dtype=torch.int64, device=DEVICE)

    def step(rows: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=HAS_GPU, cache_enabled=False):
            logits = network(pixels[rows].unsqueeze(1).float().div_(255))
            loss = F.cross_entropy(logits, labels[rows])
        loss.backward()
        optimizer.step()
        return torch.stack((loss.detach().float(), (logits.detach().argmax(1) == labels[rows]).sum().float()))

    replay, result = capture(step, rows) if HAS_GPU else (None, None)
    for _ in range(EPOCHS):
        batches = torch.randperm(len(labels), device=DEVICE).split(BATCH)
        results = torch.empty(len(batches), 2, device=DEVICE)
        for batch, out in zip(batches, results, strict=True):
            if replay and len(batch) == BATCH:
                rows.copy_(batch)
                replay()
                out.copy_(result)
            else:
                out.copy_(step(batch))
        results.tolist()
        ends.append(wait())
    return apart(ends, wait())


def capture(step: Callable, rows: torch.Tensor) -> tuple[Callable, torch.Tensor]:
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step(rows)
    wait()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        result = step(rows)
    return graph.replay, result


class Stock(pl.LightningModule):
    """The usual LightningModule."""

    def __init__(self, name: str):
        super().__init__()
        self.network = ConvNet(**layers(name))

    def training_step(self, batch, _):
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def stock(images, name: str) -> tuple[float, float]:
    workers = {"num_workers": 4, "persistent_workers": True} if HAS_GPU else {}
    return fit(Stock(name), DataLoader(images, BATCH, shuffle=True, **workers))


class Plainly(training.Graph):
    """The steps of a graph without the graph."""

    def __call__(self, *tensors):
        return self.step(*tensors)


def train(graph: type, data: ImageData, optim: str, moves: bool, folder: str = "") -> list[torch.Tensor]:
    """Train for three epochs and return the weights; the last is resumed from a checkpoint in `folder`, if given."""
    checkpoint = None
    for epochs in (2, 3) if folder else (3,):
        module = classifier(NETWORK, optim, 3 * data.steps_per_epoch * moves, clip=1.0 if moves else None)
        runner = trainer(epochs, ReseedEveryEpoch(0), precision=PRECISION)
        with mock.patch.object(training, "Graph", graph):
            runner.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        if folder:
            checkpoint = f"{folder}/last.ckpt"
            runner.save_checkpoint(checkpoint)
    return [weight.detach().cpu() for weight in module.parameters()]


def graph_equals_eager(data: ImageData) -> list[list[str]]:
    """Compare every weight after replays and after plain steps; a row for each optimizer."""
    rows = []
    for optim in OPTIMIZERS:
        row = [optim]
        for moves in (False, True):
            plain = train(Plainly, data, optim, moves)
            with tempfile.TemporaryDirectory() as folder:
                for place in ("", folder):
                    equal = map(torch.equal, plain, train(training.Graph, data, optim, moves, place))
                    row.append("equal" if all(equal) else "DIFFERENT")
        rows.append(row)
    return rows


def memory(data: ImageData) -> list[float]:
    """Return the MiB of the device in use after each of RUNS fits in this process, whoever allocated them."""
    used = []
    for _ in range(RUNS if HAS_GPU else 2):
        machine.free_gpu_memory()
        trainer(1, precision=PRECISION).fit(classifier(NETWORK), data)
        if HAS_GPU:
            free, total = torch.cuda.mem_get_info()
            used.append((total - free) / 2**20)
    return used


def share_of_peak(data: ImageData) -> tuple[float, float]:
    """Return cnn_wide's TFLOP/s in bf16 and those of a large product of matrices."""
    with FlopCounterMode(display=False) as counter:
        network = ConvNet(**layers("cnn_wide"))
        F.cross_entropy(network(torch.rand(8, 1, 28, 28)), torch.randint(10, (8,))).backward()
    images = len(data.splits["train"][1])
    ours = counter.get_total_flops() / 8 * images / fit(classifier("cnn_wide"), data)[1]
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def product() -> None:
        for _ in range(20):
            left @ right
        wait()

    product()
    return ours / 1e12, 20 * 2 * 8192**3 / seconds(product) / 1e12


def speedrun(seeds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of training and the test accuracy of each seed of claim=speedrun."""
    python("src/train.py", "-m", "claim=speedrun", f"seed=range({seeds})", "trainer=gpu")
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("digitlab").experiment_id
    runs = client.search_runs([experiment], "params.claim = 'speedrun'")
    passes = [client.get_metric_history(run.info.run_id, "time/epoch_s") for run in runs]
    return [sum(point.value for point in each) for each in passes], [run.data.metrics["test/acc"] for run in runs]


def command_lines(parts: Collection[str]) -> list[list[str]]:
    """Return the rows of what is measured through the command line, on a store of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        if "speedrun" in parts:
            times, accuracies = speedrun(20)
            mean, least, most = statistics.mean(accuracies), min(accuracies), max(accuracies)
            found = f"mean test accuracy {mean:.4f} [{least:.4f}..{most:.4f}]"
            rows.append(["claim=speedrun, training passes of 20 seeds", f"{statistics.median(times):.3f}", found])
        if "grid" in parts:
            grid = python("src/train.py", "sweep=grid_full", "sweep.seeds=3", "trainer=gpu").seconds
            rows.append(["sweep=grid_full sweep.seeds=3, 81 runs of 12 epochs, n = 1", f"{grid:.0f}", ""])
    return rows


def measure_times(data: ImageData) -> list[list[str]]:
    """Time ours, the loop by hand and the stock pipeline in turn; a row for each of the latter two and each part."""
    with tempfile.TemporaryDirectory() as folder:
        if HAS_GPU:
            unpack_mnist(folder)
            usual = datasets.MNIST(folder, transform=transforms.ToTensor())
        else:
            pixels, labels = data.splits["train"]
            usual = TensorDataset(torch.as_tensor(pixels).unsqueeze(1) / 255, labels)
        cases = {
            "ours": lambda: fit(classifier(NETWORK), data),
            "by hand": lambda: by_hand(data, NETWORK),
            "stock": lambda: stock(usual, NETWORK),
        }
        values = in_turn(cases, ROUNDS, warm_up=1 if HAS_GPU else 0)
    rows = []
    for name in ("by hand", "stock"):
        for place, part in enumerate(("once a fit", "an epoch")):
            ours, theirs = ([each[place] for each in values[case]] for case in ("ours", name))
            medians = f"{statistics.median(ours):.3f} / {statistics.median(theirs):.3f}"
            rows.append([f"{part}: ours / {name}", medians, verdict(ours, theirs)])
    return rows


def check_soundness(data: ImageData, parts: Collection[str]) -> None:
    """Show whether replays are exact and memory stays flat; end the process where replays are not."""
    if "equal" in parts:
        exact = graph_equals_eager(data)
        header = ["optimizer", "plain", "plain, resumed", "scheduler and clip", "scheduler and clip, resumed"]
        show(f"{DEVICE_NAME}, every weight after replays and after plain steps", header, exact)
        if any("DIFFERENT" in row for row in exact):
            sys.exit("error: replays and plain steps do not give the same weights; no time is taken")
    if "memory" in parts:
        used = memory(data)
        trend = "flat" if used[-1] - used[4] <= 2 else "GROWS"
        header = ["after run 5, MiB", f"after run {RUNS}, MiB", "verdict"]
        show(f"{DEVICE_NAME}, memory", header, [[f"{used[4]:.0f}", f"{used[-1]:.0f}", trend]])


def main() -> None:
    parts = sys.argv[2:] or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        sys.exit(f"error: {', '.join(sorted(unknown))}: no such part; must be of {', '.join(PARTS)}")
    console.prepare()
    machine.fix_cudnn_algorithms()
    source = {"source": torchvision_mnist, "root": DATA} if HAS_GPU else {"source": mnist5k, "skip_first": 4400}
    data = ImageData(**source, batch_size=BATCH, steps_per_execution=None)
    data.setup()
    if not HAS_GPU:
        graph_equals_eager(data), memory(data), measure_times(data)
        show("GPU: none on this machine", ["what", "value"], [[part, "not measured"] for part in PARTS.values()])
        return
    check_soundness(data, parts)
    if "times" in parts:
        title = f"{DEVICE_NAME}, {NETWORK}, batch {BATCH}, {PRECISION}, {EPOCHS} epochs, n = {ROUNDS} in turn"
        show(title, ["what", "s, median", "ratio"], measure_times(data))
    if "peak" in parts:
        ours, peak = share_of_peak(data)
        row = ["cnn_wide, TFLOP/s of the bf16 peak", f"{ours:.0f} / {peak:.0f}", f"{ours / peak:.0%}"]
        show(f"{DEVICE_NAME}, {PRECISION}", ["what", "value", "share"], [row])
    if rows := command_lines(parts):
        show(f"{DEVICE_NAME}, through the command line", ["what", "s", "came to"], rows)


if __name__ == "__main__":
    main()
