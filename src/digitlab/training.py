"""Train one network with one optimizer on one data set, from the configuration to the tracked result."""

import re
import shlex
import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.utilities.model_summary import ModelSummary
from torchmetrics.functional.classification import multiclass_confusion_matrix

from digitlab import REPOSITORY, console, machine, plots
from digitlab.classifier import Classifier
from digitlab.config import IN_DIGEST, UserError, build, check, deviations, fingerprint, flatten, groups, user_errors
from digitlab.data import ImageData
from digitlab.networks import Predictor
from digitlab.progress import Progress
from digitlab.resume import (
    DurableCheckpointIO,
    EpochCheckpoint,
    EpochNoise,
    read_checkpoint,
    saved_checkpoints,
)
from digitlab.run import Run
from digitlab.signals import exit_on_signals
from digitlab.statistics import wilson
from digitlab.tracking import Store, redact

MISTAKES = 1000  # images that a run keeps at most of those that it got wrong


@exit_on_signals()
def train(cfg: DictConfig) -> float:
    """Run what `cfg` describes, or continue it where it broke off, or find it done; return its best val/acc.

    Raises UserError for a mistake in `cfg`, before anything is recorded.
    """
    console.prepare()
    machine.keep_memory()
    machine.ask_no_nvml()
    cfg, data, identity = identify(cfg)
    if cfg.sweep.parent:
        machine.die_with_parent()
    else:
        console.say("\n".join(machine.accelerators()))
    classifier, trainer = assemble(cfg, data)
    with user_errors("tracking"):
        store = Store(cfg.tracking.uri, cfg.tracking.experiment)
        store.open()

    with store.failures(), store.owner(identity):
        done, broken = store.find(identity)
        if done and not cfg.rerun:
            of, results = done.info, done.data.metrics
            console.say(f"{of.run_name} is done already (run {of.run_id}); rerun=true runs it again")
            console.say(
                f"test accuracy {results['test/acc']:.4f}, test loss {results['test/loss']:.4f}; see {store.way_in}"
            )
            return best_accuracy(Run(store.client, done))
        names = name_parts(cfg, data)
        if broken and store.is_alive(broken) and not cfg.rerun:
            owner = broken.data.tags["owner"].partition(":")[0]
            raise UserError(f"run {broken.info.run_id} is under way on host {owner}; rerun=true starts another")
        if broken and not store.is_alive(broken):
            run = store.resume(broken)
            console.say(f"continuing {run.name} (run {run.id})")
        else:
            run = store.begin(name_run(names), {"fingerprint": identity, "command": _command()})
        with run:
            describe(run, cfg, names, data, classifier)
            epochs = fit(run, cfg, data, classifier, trainer)
            tested = evaluate(run, cfg, names, data, classifier, trainer)
            run.keep_only(f"{cfg.evaluate_on}.ckpt")
        summarize(run, cfg, data, classifier, f"epoch {tested} of {epochs} ({cfg.evaluate_on})", store.way_in)
        machine.give_memory_back()
        return best_accuracy(run)


def identify(cfg: DictConfig) -> tuple[DictConfig, ImageData, str]:
    """Settle what `cfg` leaves open and load its data; return both, with the fingerprint that the run is known by."""
    cfg = check(cfg)
    with user_errors(f"trainer.accelerator={cfg.trainer.accelerator}"):
        cfg.trainer.accelerator = machine.accelerator(cfg.trainer.accelerator)
    cfg.trainer.precision = machine.precision(cfg.trainer.precision, cfg.trainer.accelerator)
    data: ImageData = build(cfg, "data")
    deciding = OmegaConf.masked_copy(cfg.data, ["_target_", *IN_DIGEST])
    with user_errors("data"):
        data.share(_load(OmegaConf.to_yaml(deciding)))
    return cfg, data, fingerprint(cfg, data.digest)


@lru_cache(maxsize=2)
def _load(node: str) -> ImageData:
    """Load the images that the YAML `node` describes; the runs of a sweep share them."""
    data = instantiate(OmegaConf.create(node), _convert_="all")
    data.setup()
    return data


def name_parts(cfg: DictConfig, data: ImageData) -> dict[str, str]:
    """Return what was chosen in each group, the data by the name of what was found, and the seed."""
    return groups(cfg) | {"data": data.name, "seed": str(cfg.seed)}


def name_run(names: dict[str, str]) -> str:
    """Return a run's name: model, optimizer, seed, data unless it is mnist, and what else was changed."""
    parts = [names["model"], names["optim"], f"s{names['seed']}"]
    if names["data"] != "mnist":
        parts.append(names["data"])
    return "-".join(parts + deviations())


def assemble(cfg: DictConfig, data: ImageData) -> tuple[Classifier, pl.Trainer]:
    """Build network, optimizer, scheduler and trainer; whatever is wrong with them shows before a run exists."""
    pl.seed_everything(cfg.seed, verbose=False)
    network = build(cfg, "model", num_classes=data.num_classes, input_shape=data.input_shape)
    optimizer = build(cfg, "optim", network.parameters())
    scheduler = None
    if cfg.get("scheduler"):
        for key in OmegaConf.missing_keys(cfg):
            OmegaConf.update(cfg, key, cfg.trainer.max_epochs * data.steps_per_epoch)
        scheduler = build(cfg, "scheduler", optimizer)
    classifier = Classifier(network, optimizer, scheduler, cfg.loss, clip=cfg.trainer.get("gradient_clip_val"))
    classifier.example_input_array = torch.zeros(2, *data.input_shape)

    theirs = [name for name, node in cfg.trainer.callbacks.items() if node is not None]
    callbacks = [EpochNoise(cfg.seed), *(build(cfg, f"trainer.callbacks.{name}") for name in theirs)]
    if cfg.early_stopping.patience:
        callbacks.append(EarlyStopping("val/loss", patience=cfg.early_stopping.patience, check_finite=False))
    callbacks.append(EpochCheckpoint())
    fixed = {"devices": 1, "logger": False, "plugins": [DurableCheckpointIO()]}
    fixed["gradient_clip_val"] = None  # the classifier's work: Lightning clips only where it takes the steps itself
    return classifier, build(cfg, "trainer", callbacks=callbacks, **fixed)


def describe(run: Run, cfg: DictConfig, names: dict[str, str], data: ImageData, classifier: Classifier) -> None:
    """Record what the run is: configuration, environment, layers, data."""
    layers = console.draw_layers(_layers(classifier))
    if not cfg.sweep.parent:
        console.say(layers)
    cfg = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "tracking"])  # an address may hold a password
    environment = machine.environment()
    run.log_params(names | flatten(cfg) | {"parameters": str(sum(each.numel() for each in classifier.parameters()))})
    run.log_tags(names | _git() | {"environment": environment})
    if cfg.sweep.parent:
        run.log_tags({"mlflow.parentRunId": cfg.sweep.parent, "sweep": str(cfg.sweep.name)})
    run.log_text(OmegaConf.to_yaml(OmegaConf.merge({"groups": names}, cfg)), "config.yaml")
    run.log_text(environment, "environment.txt")
    run.log_text(layers, "model_summary.txt")
    run.log_dataset(data.name, data.digest, data.sizes, source=str(data.root or data.name))
    some = np.random.default_rng(0).permutation(data.sizes["train"])[:40]  # the first ones may be all of one class
    images, labels = (tensor[some].numpy() for tensor in data.splits["train"])
    run.log_figure(plots.samples(images, labels, data.classes, f"{data.name}: training images"), "figures/samples.png")


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
    mistaken = np.flatnonzero(predicted != labels)[:MISTAKES]  # with their images, for who has not got the data
    shown = {"mistaken": mistaken, "mistaken_images": images[mistaken]}
    run.log_arrays("predictions.npz", probabilities=probabilities, labels=labels, classes=classes, **shown)

    matrix = multiclass_confusion_matrix(*map(torch.from_numpy, (predicted, labels)), data.num_classes).numpy()
    model = re.sub(r"[^\w-]", "_", "{model}-{optim}-s{seed}".format_map(names))  # a LoggedModel's name may hold no more
    title = f"{model} on {data.name}: {len(labels):,} test images, accuracy {classifier.results['test/acc']:.4f}"
    curves = {
        key: run.history(key) for key in ("train/loss", "val/loss", "train/acc", "val/acc", "test/loss", "test/acc")
    }
    run.log_figure(plots.curves(curves, f"{model} on {data.name}"), "figures/curves.png")
    run.log_figure(plots.confusion(matrix, data.classes, title), "figures/confusion.png")
    legend = f"{model} on {data.name}, most confident mistakes: predicted, not true: probability"
    run.log_figure(plots.mistakes(images, labels, probabilities, data.classes, legend), "figures/mistakes.png")
    run.log_model(model, Predictor(classifier.network, data.normalize), images[:2], epoch, data.classes)
    return epoch


def summarize(run: Run, cfg: DictConfig, data: ImageData, classifier: Classifier, weights: str, way_in: str) -> None:
    """Print what the run came to."""
    sizes = ", ".join(f"{count:,} {stage}" for stage, count in data.sizes.items())
    total, acc = data.sizes["test"], classifier.results["test/acc"]
    low, high = wilson(round(acc * total), total)
    if not np.isfinite(classifier.results["test/loss"]):
        console.warn("the loss is not a number any more: the run diverged; a lower optim.lr may help")
    accuracy = f"{acc:.4f}  (95 % interval {low:.4f} to {high:.4f}, n = {total:,})"
    if cfg.sweep.parent:
        console.say(f"{run.name}: test accuracy {accuracy}")
        return
    _, seconds = run.history("time/epoch_s")
    _, rates = run.history("images_per_s")
    console.show_summary(
        f"\n{run.name}",
        {
            "data": f"{data.name}: {data.num_classes} classes, {sizes}",
            "test accuracy": accuracy,
            "test loss": f"{classifier.results['test/loss']:.4f}",
            "weights": weights,
            "time": f"{sum(seconds):.1f} s in training passes, {np.median(rates):,.0f} images/s",
            "run": run.id,
            "model": f"runs:/{run.id}/{run.model}",
            "checkpoint": run.locate(f"checkpoints/{cfg.evaluate_on}.ckpt"),
            "see it": way_in,
        },
    )


def best_accuracy(run: Run) -> float:
    """Return the highest val/acc of any epoch."""
    _, accuracies = run.history("val/acc")
    return max(accuracies[1:])


def _layers(classifier: Classifier) -> list[tuple[str, str, str, int]]:
    summary = ModelSummary(classifier, max_depth=-1)
    rows = zip(summary.layer_names, summary.layer_types, summary.out_sizes, summary.param_nums, strict=True)
    leaves = {name for name, module in classifier.network.named_modules() if not any(module.children())}
    return [
        (name.removeprefix("network."), kind, f"({', '.join(['N', *map(str, shape[1:])])})", count)
        for name, kind, shape, count in rows
        if name.removeprefix("network.") in leaves
    ]


def _command() -> str:
    return redact(shlex.join(["python", *sys.argv]))


def _git() -> dict[str, str]:
    """Return the commit that runs and whether files differ from it; nothing outside a git checkout."""
    try:
        git = ["git", "-C", str(REPOSITORY)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"mlflow.source.git.commit": commit, "git.dirty": str(bool(status.strip())).lower()}
