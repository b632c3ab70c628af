"""Measure the GPU's side: ours against a loop by hand in a CUDA graph and against the stock pipeline, and the limit.

Prints "not measured" where there is no GPU. Graph and plain steps are compared before any time is taken. The last two
rows are the command line's: the speedrun over 20 seeds, and the whole grid.
PYTHONPATH=src python benchmarks/gpu.py [rounds]
"""

import os
import statistics
import sys
import tempfile

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from measure import in_turn, python, seconds, show, unpack_mnist, verdict
from mlflow import MlflowClient
from step import layers
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms

from digitlab.data.datamodule import ImageData
from digitlab.data.sources import torchvision_mnist
from digitlab.models.networks import ConvNet
from digitlab.training.checkpoint import ReseedEveryEpoch
from digitlab.training.classifier import Classifier

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
BATCH, EPOCHS, PRECISION = 128, 2, "bf16-mixed"
QUIET = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}


def fit(module: pl.LightningModule, data, **settings) -> float:
    """Return the seconds of an epoch of training, start and end of Lightning's fit included."""
    trainer = pl.Trainer(accelerator="gpu", devices=1, max_epochs=EPOCHS, precision=PRECISION, limit_val_batches=0,
                         **QUIET, **settings)  # fmt: skip

    def train() -> None:
        trainer.fit(module, data)
        torch.cuda.synchronize()

    return seconds(train) / EPOCHS


def classifier(name: str, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    network = ConvNet(**layers(name))
    return Classifier(network, torch.optim.Adam(network.parameters(), fused=True))


def by_hand(data: ImageData, name: str) -> float:
    """Return the seconds of an epoch of a loop by hand: data on the GPU, the whole step in one graph."""
    network = classifier(name).network.cuda().train()
    optimizer = torch.optim.Adam(network.parameters(), fused=True, capturable=True)
    pixels, labels = (tensor.cuda() for tensor in data.splits["train"])
    rows = torch.randint(len(labels), (BATCH,), device="cuda")

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
            loss = F.cross_entropy(network(pixels[rows].unsqueeze(1).float().div_(255)), labels[rows])
        loss.backward()
        optimizer.step()

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        step()

    def epochs() -> None:
        for _ in range(EPOCHS):
            order = torch.randperm(len(labels), device="cuda")
            for batch in order[: len(order) // BATCH * BATCH].view(-1, BATCH):
                rows.copy_(batch)
                graph.replay()
        torch.cuda.synchronize()

    return seconds(epochs) / EPOCHS


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


def stock(root: str, name: str) -> float:
    images = datasets.MNIST(root, transform=transforms.ToTensor())
    return fit(Stock(name), DataLoader(images, BATCH, shuffle=True, num_workers=4, persistent_workers=True))


def graph_equals_plain(data: ImageData) -> bool:
    """Train twice with the same seeds, captured and not, and compare every weight."""
    weights = []
    torch.backends.cudnn.deterministic = True
    for is_captured in (True, False):
        module = classifier("cnn_pool")
        if not is_captured:
            module.on_train_start = lambda: None
        fit(module, data, callbacks=[ReseedEveryEpoch(0)])
        weights.append([weight.detach().cpu() for weight in module.parameters()])
    torch.backends.cudnn.deterministic = False
    return all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def share_of_peak(data: ImageData) -> tuple[float, float]:
    """Return cnn_wide's TFLOP/s in bf16 and those of a large product of matrices."""
    with FlopCounterMode(display=False) as counter:
        network = ConvNet(**layers("cnn_wide"))
        F.cross_entropy(network(torch.rand(8, 1, 28, 28)), torch.randint(10, (8,))).backward()
    images = len(data.splits["train"][1])
    ours = counter.get_total_flops() / 8 * images / fit(classifier("cnn_wide"), data)
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def product() -> None:
        for _ in range(20):
            left @ right
        torch.cuda.synchronize()

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


def command_lines() -> list[list[str]]:
    """Return the rows of what is measured through the command line, on a store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        times, accuracies = speedrun(20)
        grid = python("src/train.py", "sweep=grid_full", "sweep.seeds=3", "trainer=gpu").seconds
    found = f"mean test accuracy {statistics.mean(accuracies):.4f} [{min(accuracies):.4f}..{max(accuracies):.4f}]"
    return [
        ["claim=speedrun, training passes of 20 seeds", f"{statistics.median(times):.3f}", found],
        ["sweep=grid_full sweep.seeds=3, 81 runs of 12 epochs, n = 1", f"{grid:.0f}", ""],
    ]


def main() -> None:
    header = ["what", "s, median", "ratio"]
    if not torch.cuda.is_available():
        rows = ["ours / loop by hand in a CUDA graph", "ours / stock pipeline", "cnn_wide, share of the bf16 peak",
                "claim=speedrun", "sweep=grid_full sweep.seeds=3"]  # fmt: skip
        show("GPU: none on this machine", header, [[row, "not measured", "not measured"] for row in rows])
        return
    data = ImageData(torchvision_mnist, root=os.environ.get("DIGITLAB_DATA"), batch_size=BATCH)
    data.setup()
    if not graph_equals_plain(data):
        sys.exit("error: the captured step and the plain one do not give the same weights; no time is taken")
    with tempfile.TemporaryDirectory() as folder:
        unpack_mnist(folder)
        cases = {
            "ours": lambda: fit(classifier("cnn_pool"), data),
            "by hand": lambda: by_hand(data, "cnn_pool"),
            "stock": lambda: stock(folder, "cnn_pool"),
        }
        values = in_turn(cases, ROUNDS)
    rows = [
        [f"cnn_pool, ours / {name}", f"{statistics.median(values['ours']):.3f} / {statistics.median(values[name]):.3f}",
         verdict(values["ours"], values[name])]
        for name in ("by hand", "stock")
    ]  # fmt: skip
    ours, peak = share_of_peak(data)
    rows.append(["cnn_wide, TFLOP/s of the bf16 peak", f"{ours:.0f} / {peak:.0f}", f"{ours / peak:.0%}"])
    name = torch.cuda.get_device_name()
    show(f"GPU: {name}, batch {BATCH}, {PRECISION}, n = {ROUNDS} in turn", header, rows)
    show(f"GPU: {name}, through the command line", ["what", "s", "came to"], command_lines())


if __name__ == "__main__":
    main()
