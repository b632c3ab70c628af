"""Train one network with one optimizer on one data set, from the configuration to the tracked result."""

import re

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torchmetrics.functional.classification import multiclass_confusion_matrix

from digitlab.config.errors import UserError, user_errors
from digitlab.data.datamodule import ImageData
from digitlab.models.networks import Predictor
from digitlab.platform import console, machine
from digitlab.platform.signals import exit_on_signals
from digitlab.plots import run_figures
from digitlab.tracking import locks, queries
from digitlab.tracking.run import Run, begin
from digitlab.tracking.store import Store
from digitlab.training.checkpoint import (
    EpochCheckpoint,
    read_checkpoint,
    saved_checkpoints,
)
from digitlab.training.classifier import Classifier
from digitlab.training.progress import Progress
from digitlab.training.record import MISTAKES, command_line, describe, summarize
from digitlab.training.setup import assemble, identify, name_parts, name_run


@exit_on_signals()
def train(cfg: DictConfig) -> float:
    """Run what `cfg` describes, or continue it where it broke off, or find it done; return its best val/acc.

    Raises UserError for a mistake in `cfg`, before anything is recorded.
    """
    console.prepare()
    machine.disable_malloc_trim()
    machine.disable_nvml_check()
    cfg, data, identity = identify(cfg)
    if cfg.sweep.parent:
        machine.set_pdeathsig()
    else:
        console.say("\n".join(machine.accelerators()))
    classifier, trainer = assemble(cfg, data)
    with user_errors("tracking"):
        store = Store(cfg.tracking.uri, cfg.tracking.experiment)
        store.open()

    with store.translate_errors(), locks.owner(store, identity):
        done, broken = queries.find(store, identity)
        if done and not cfg.rerun:
            of, results = done.info, done.data.metrics
            console.say(f"{of.run_name} is done already (run {of.run_id}); rerun=true runs it again")
            console.say(
                f"test accuracy {results['test/acc']:.4f}, test loss {results['test/loss']:.4f}; see {store.ui_hint}"
            )
            return best_accuracy(Run(store.client, done))
        names = name_parts(cfg, data)
        if broken and locks.is_owner_alive(store, broken) and not cfg.rerun:
            owner = broken.data.tags["owner"].partition(":")[0]
            raise UserError(f"run {broken.info.run_id} is under way on host {owner}; rerun=true starts another")
        if broken and not locks.is_owner_alive(store, broken):
            run = Run(store.client, broken)
            console.say(f"continuing {run.name} (run {run.id})")
        else:
            run = begin(store, name_run(names), {"fingerprint": identity, "command": command_line()})
        with run:
            describe(run, cfg, names, data, classifier)
            epochs = fit(run, cfg, data, classifier, trainer)
            tested = evaluate(run, cfg, names, data, classifier, trainer)
            run.keep_only(f"{cfg.evaluate_on}.ckpt")
        summarize(run, cfg, data, classifier, f"epoch {tested} of {epochs} ({cfg.evaluate_on})", store.ui_hint)
        machine.trim_malloc()
        return best_accuracy(run)


def fit(run: Run, cfg: DictConfig, data: ImageData, classifier: Classifier, trainer: pl.Trainer) -> int:
    """Train from the start or from the last checkpoint; return the number of epochs."""
    trainer.logger = run.logger
    keeper = next(each for each in trainer.checkpoint_callbacks if isinstance(each, EpochCheckpoint))
    keeper.folder, keeper.run = run.checkpoints, run.id
    if cfg.sweep.parent:
        for speaker in (each for each in trainer.callbacks if isinstance(each, Progress)):
            speaker.label = f"{run.name}: "
    saved = saved_checkpoints(run.checkpoints, run.id)
    if cfg.evaluate_on == "best" and "best" not in saved:
        saved = {}  # only training from the start brings the best weights back
    newest = max(saved.values(), key=lambda each: each.epoch, default=None)
    if newest:
        console.say(f"after epoch {newest.epoch} of {cfg.trainer.max_epochs}")
    else:
        if run.logger.stored:
            console.say("from the start: there is no checkpoint to continue from")
        trainer.validate(classifier, data, verbose=False)  # the untrained network: step 0 of the curves
    if not newest or not (newest.finished or "test/acc" in run.logger.stored):
        try:
            trainer.fit(classifier, data, ckpt_path=newest and newest.file, weights_only=True)
        finally:
            classifier.release()
    return run.history("val/loss")[0][-1]


def evaluate(
    run: Run, cfg: DictConfig, names: dict[str, str], data: ImageData, classifier: Classifier, trainer: pl.Trainer
) -> int:
    """Test the best or the last weights and record results, predictions, figures and model; return their epoch."""
    checkpoint = run.checkpoints / f"{cfg.evaluate_on}.ckpt"
    trainer.test(classifier, data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    epoch = read_checkpoint(checkpoint, run.id).epoch
    run.logger.log_metrics(classifier.results, epoch)
    run.logger.save()
    images, labels = (tensor.numpy() for tensor in data.splits["test"])
    probabilities = classifier.probabilities
    predicted, classes = probabilities.argmax(1), np.array(data.classes)
    misclassified = np.flatnonzero(predicted != labels)[:MISTAKES]  # with their images, for who has not got the data
    shown = {"misclassified": misclassified, "misclassified_images": images[misclassified]}
    run.log_arrays("predictions.npz", probabilities=probabilities, labels=labels, classes=classes, **shown)

    matrix = multiclass_confusion_matrix(*map(torch.from_numpy, (predicted, labels)), data.num_classes).numpy()
    model = re.sub(r"[^\w-]", "_", "{model}-{optim}-s{seed}".format_map(names))  # a LoggedModel's name may hold no more
    title = f"{model} on {data.name}: {len(labels):,} test images, accuracy {classifier.results['test/acc']:.4f}"
    curves = {
        key: run.history(key) for key in ("train/loss", "val/loss", "train/acc", "val/acc", "test/loss", "test/acc")
    }
    run.log_figure(run_figures.curves(curves, f"{model} on {data.name}"), "figures/curves.png")
    run.log_figure(run_figures.confusion(matrix, data.classes, title), "figures/confusion.png")
    legend = f"{model} on {data.name}, most confident mistakes: predicted, not true: probability"
    run.log_figure(run_figures.mistakes(images, labels, probabilities, data.classes, legend), "figures/mistakes.png")
    run.log_model(model, Predictor(classifier.network, data.normalize), images[:2], epoch, data.classes)
    return epoch


def best_accuracy(run: Run) -> float:
    """Return the highest val/acc of any epoch."""
    _, accuracies = run.history("val/acc")
    return max(accuracies[1:])
