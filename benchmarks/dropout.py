"""Compare the test accuracy under our dropout with that under nn.Dropout: the same seeds, data and recipe, full MNIST.

PYTHONPATH=src python benchmarks/dropout.py [seeds] [epochs]
"""

import os
import sys

import numpy as np
import pytorch_lightning as pl
import torch
from measure import show
from scipy import stats
from torch import nn

from digitlab.data.datamodule import ImageData
from digitlab.data.sources import torchvision_mnist
from digitlab.models import blocks, layers, networks
from digitlab.platform import machine
from digitlab.training.checkpoint import ReseedEveryEpoch
from digitlab.training.classifier import Classifier

SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
EPOCHS = int(sys.argv[2]) if len(sys.argv) > 2 else 4
BLOCKS = [{"channels": 32, "kernel": 3, "pool": 2, "dropout": 0.2}, {"channels": 64, "kernel": 3, "pool": 2}]


class StockDropout(nn.Sequential):
    """PyTorch's own layers in the place of ours."""

    def __init__(self, p: float):
        super().__init__(nn.ReLU(), nn.Dropout(p))


def accuracy(data: ImageData, layer: type[nn.Module], seed: int) -> float:
    """Return the test accuracy of a small network with three kinds of dropout."""
    blocks.ReluDropout = layer
    pl.seed_everything(seed, verbose=False)
    network = networks.ConvNet(BLOCKS, [{"units": 64, "dropout": 0.5}])
    classifier = Classifier(network, torch.optim.Adam(network.parameters(), fused=True))
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(accelerator="cpu", max_epochs=EPOCHS, limit_val_batches=0, num_sanity_val_steps=0,
                         callbacks=[ReseedEveryEpoch(seed)], **quiet)  # fmt: skip
    mine = ImageData(torchvision_mnist, root=data.root, seed=seed)
    mine.loaded = data.loaded
    trainer.fit(classifier, mine)
    trainer.test(classifier, mine, verbose=False)
    return classifier.results["test/acc"]


def main() -> None:
    machine.disable_malloc_trim()
    data = ImageData(torchvision_mnist, root=os.environ.get("DIGITLAB_DATA"))
    data.setup()
    kinds = {"ours": layers.ReluDropout, "nn.Dropout": StockDropout}
    values = {name: [accuracy(data, layer, seed) for seed in range(SEEDS)] for name, layer in kinds.items()}
    found = stats.ttest_ind(values["ours"], values["nn.Dropout"], equal_var=False)
    low, high = found.confidence_interval()
    rows = [[name, f"{np.mean(each):.4f}", f"{np.std(each, ddof=1):.4f}"] for name, each in values.items()]
    rows.append(["difference", f"{np.mean(values['ours']) - np.mean(values['nn.Dropout']):+.4f}",
                 f"95 % interval {low:+.4f} to {high:+.4f}"])  # fmt: skip
    show(f"Test accuracy after {EPOCHS} epochs, n = {SEEDS} seeds each", ["dropout", "mean", "spread"], rows)


if __name__ == "__main__":
    main()
