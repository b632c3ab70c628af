"""Time a training step with and without each component that a claim may need, both ours, through the Trainer.

A case is a short training from its own configuration, as the command line would compose it; its steps alone are timed.
PYTHONPATH=src python benchmarks/components.py [rounds]
"""

import os
import statistics
import tempfile
import time
from functools import partial

import pytorch_lightning as pl
from measure import configure, in_turn, layers, show, verdict
from pipeline import ROUNDS, opened, train

from digitlab.platform import console, machine
from digitlab.training.setup import identify

NETWORK, EPOCHS = "cnn_pool", 3  # the first epoch warms up
BASE = (f"model={NETWORK}", "optim=adam", "data=mnist5k", f"trainer.max_epochs={EPOCHS}", "trainer=cpu")


def blocks(**changes: object) -> str:
    """Write the override that changes every block of the network."""
    changed = [block | changes for block in layers(NETWORK)["blocks"]]
    written = [",".join(f"{key}:{value}" for key, value in block.items() if value is not None) for block in changed]
    return "model.blocks=[" + ",".join(f"{{{block}}}" for block in written) + "]"


COMPONENTS = {
    "initial values": ["model.init={weights:he_normal,biases:0}"],
    "activation": [blocks(activation="elu")],
    "padding": [blocks(padding="same")],
    "file order": ["data.shuffle=false"],
    "validation from the first images": ["data.split=first"],
    "end after N steps": ["trainer.max_steps=90"],
    "mean and std": ["data.mean=0.1307", "data.std=0.3081"],
    "learning rate by step": ["scheduler=inverse_time"],
    "warm-up, then decay": ["scheduler=warmup_cosine"],
    "lower rate on a plateau": ["scheduler=plateau"],
    "pooling windows that overlap": [blocks(pool=3, pool_stride=2)],
    "pooling with ceil mode": [blocks(pool_ceil_mode="true")],
    "average pooling": [blocks(pool_kind="average")],
    "quadratic loss": [
        "loss={_target_:digitlab.training.quadratic_loss.QuadraticLoss}",
        "model.output={activation:sigmoid}",
    ],
    "binary loss on softmax": ["loss={_target_:digitlab.training.binary_loss.SoftmaxBinaryLoss}"],
    "Keras's clipped loss": ["loss=clipped_cross_entropy"],
    "colour": ["data.color=true"],
    "batch norm": [blocks(batch_norm="before")],
    "rules for biases": ["optim.bias.lr=0.002"],
    "dropout of whole channels": [blocks(dropout=None, spatial_dropout=0.2)],
    "largest gradient": ["trainer.gradient_clip_val=1"],
    "two batches a step": ["data.batch_size=64", "trainer.accumulate_grad_batches=2"],
    "shift and turn": ["data.augment.shift=2", "data.augment.rotate=10"],
    "flip": ["data.augment.flip=0.5"],
    "crop with padding": ["data.augment.crop=2"],
    "random erasing": ["data.augment.erase=0.5"],
    "average of the weights (ema)": ["averaging.kind=ema"],
    "average of the weights (swa)": ["averaging.kind=swa", "averaging.start=0"],
    "metrics": ["metrics=[f1_macro,top5,ece]"],
}


class Clock(pl.Callback):
    """Take the seconds from the start of each epoch to the end of its last training step, for each step."""

    def __init__(self):
        self.steps: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, *_):
        self.began, self.before = time.perf_counter(), trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *_):
        self.ended, self.after = time.perf_counter(), trainer.global_step

    def on_train_epoch_end(self, *_):
        self.steps.append((self.ended - self.began) / (self.after - self.before))


def step(overrides: list[str]) -> float:
    """Return the seconds of a training step of the faster epoch, the first left out."""
    cfg, data, _ = identify(configure(*BASE, *overrides))
    clock = Clock()
    train(cfg, data, opened(cfg), clock)
    return min(clock.steps[1:])


def main() -> None:
    console.prepare()
    machine.disable_malloc_trim()
    machine.disable_nvml_check()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        for name, overrides in COMPONENTS.items():
            cases = {"without": partial(step, []), "with": partial(step, overrides)}
            values = in_turn(cases, ROUNDS, warm_up=0)
            times = [f"{statistics.median(each) * 1e3:.1f}" for each in values.values()]
            rows.append([name, *times, verdict(values["with"], values["without"])])
    show(
        f"What each component costs a step of {NETWORK}, batch 128, embedded data, n = {ROUNDS} rounds in turn",
        ["component", "without ms", "with ms", "with / without"],
        rows,
    )


if __name__ == "__main__":
    main()
