"""The pipeline of Lightning templates: torchvision + DataLoader, torchmetrics, self.log, progress bar, MLFlowLogger.

A small dense network with batch normalization, batch 128, 55,000 / 5,000 / 10,000 images; prints the seconds of each
epoch, and tests the best weights at the end, as lightning-hydra-template's train.yaml has it (`test: True`).
python template.py ROOT STORE EPOCHS
"""

import sys
import time
from itertools import pairwise

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import MLFlowLogger
from torch import nn
from torch.utils.data import DataLoader, random_split
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor


def dense() -> nn.Sequential:
    sizes = (784, 64, 128, 64)
    parts = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        parts += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(64, 10))


class Images(pl.LightningDataModule):
    def __init__(self, root: str):
        super().__init__()
        self.root = root

    def setup(self, stage=None):
        images = MNIST(self.root, transform=Compose([ToTensor(), Normalize((0.1307,), (0.3081,))]))
        self.train, self.val = random_split(images, [55_000, 5_000], torch.Generator().manual_seed(42))
        self.test = MNIST(self.root, train=False, transform=images.transform)

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=128, shuffle=True, num_workers=0)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=128, num_workers=0)

    def test_dataloader(self):
        return DataLoader(self.test, batch_size=128, num_workers=0)


class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net, self.criterion = dense(), nn.CrossEntropyLoss()
        self.train_acc, self.val_acc, self.test_acc = (MulticlassAccuracy(10) for _ in range(3))
        self.train_loss, self.val_loss, self.test_loss = (MeanMetric() for _ in range(3))
        self.val_acc_best = MaxMetric()

    def step(self, batch):
        images, labels = batch
        logits = self.net(images)
        return self.criterion(logits, labels), logits.argmax(1), labels

    def training_step(self, batch, _):
        loss, predicted, labels = self.step(batch)
        self.train_loss(loss)
        self.train_acc(predicted, labels)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def on_train_epoch_start(self):
        self.start = time.perf_counter()

    def on_validation_start(self):
        if hasattr(self, "start"):
            print(f"\nepoch_s {time.perf_counter() - self.start:.4f}", flush=True)

    def validation_step(self, batch, _):
        loss, predicted, labels = self.step(batch)
        self.val_loss(loss)
        self.val_acc(predicted, labels)
        self.log("val/loss", self.val_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("val/acc", self.val_acc, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self):
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True, prog_bar=True)

    def test_step(self, batch, index):
        loss, predicted, labels = self.step(batch)
        self.test_loss(loss)
        self.test_acc(predicted, labels)
        self.log("test/loss", self.test_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("test/acc", self.test_acc, on_step=False, on_epoch=True, prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


root, store, epochs = sys.argv[1:]
keeper = ModelCheckpoint(dirpath=f"{store.removeprefix('sqlite:///')}.checkpoints", monitor="val/acc", mode="max")
trainer = pl.Trainer(
    accelerator="cpu", max_epochs=int(epochs), logger=MLFlowLogger("template", tracking_uri=store),
    callbacks=[keeper, TQDMProgressBar()],
)  # fmt: skip
module, images = Module(), Images(root)
trainer.fit(module, images)
trainer.test(module, images, ckpt_path="best")
