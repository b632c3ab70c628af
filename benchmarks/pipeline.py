"""Time the pipeline over a hand-written loop: same network, data, batches, optimizer; MLflow and progress on in ours.

Both train for EPOCHS; ours validates on a thousandth of the images besides, saves checkpoints and writes its points.
PYTHONPATH=src python benchmarks/pipeline.py [rounds]
"""

import os
import statistics
import sys
import tempfile

import torch.nn.functional as F
from measure import configure, in_turn, seconds, show, verdict
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback

from digitlab.data.datamodule import ImageData
from digitlab.platform import console, machine
from digitlab.tracking.begin import begin
from digitlab.tracking.store import Store
from digitlab.training.distributed import ALONE, Team
from digitlab.training.run import fit
from digitlab.training.setup import Job, assemble, identify

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
EPOCHS = {"mlp": 3, "cnn_pool": 1}


def settle(model: str):
    epochs = f"trainer.max_epochs={EPOCHS[model]}"
    return identify(configure(f"model={model}", "optim=adam", "data.val_fraction=0.001", epochs))[:2]


def pipeline(model: str) -> float:
    """Return the seconds of ours, from building the network to the last checkpoint, without test and artifacts."""
    cfg, data = settle(model)
    store = opened(cfg)
    return seconds(lambda: train(cfg, data, store))


def opened(cfg: DictConfig) -> Store:
    store = Store(cfg.tracking.uri, cfg.tracking.experiment)
    store.open()
    return store


def train(cfg: DictConfig, data: ImageData, store: Store, *callbacks: Callback) -> None:
    """Fit a network as a run does, with `callbacks` besides."""
    classifier, trainer = assemble(cfg, data)
    trainer.callbacks[:0] = callbacks  # pyright: ignore[reportAttributeAccessIssue]  made by its constructor, undeclared
    with begin(store, "benchmark", {}) as run:
        team = Team(ALONE, "", trainer.strategy.root_device)
        fit(run, Job(cfg, "", {}, data, classifier, trainer, team, {}))


def loop(model: str) -> float:
    """Return the seconds of a loop by hand."""
    cfg, data = settle(model)

    def by_hand() -> None:
        classifier, _ = assemble(cfg, data)
        network, optimizer = classifier.network, classifier.optimizer
        network.train()
        data.steps_per_execution = 1
        loader = data.train_dataloader()
        for _ in range(EPOCHS[model]):
            for images, labels in loader:
                optimizer.zero_grad()
                F.cross_entropy(network(images), labels).backward()
                optimizer.step()

    return seconds(by_hand)


def main() -> None:
    console.prepare()
    machine.disable_malloc_trim()
    machine.disable_nvml_check()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        for model, epochs in EPOCHS.items():
            values = in_turn({"ours": lambda m=model: pipeline(m), "loop": lambda m=model: loop(m)}, ROUNDS)
            each = [f"{statistics.median(values[name]) / epochs:.2f}" for name in ("loop", "ours")]
            rows.append([model, *each, verdict(values["ours"], values["loop"])])
    show(
        f"The pipeline over a loop by hand, full MNIST, batch 128, fp32, n = {ROUNDS} rounds in turn",
        ["network", "loop s/epoch", "ours s/epoch", "ours / loop"],
        rows,
    )


if __name__ == "__main__":
    main()
