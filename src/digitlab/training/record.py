"""Write down what a run is and what it came to."""

import shlex
import subprocess
import sys

import numpy as np
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.model_summary import ModelSummary

from digitlab import REPOSITORY
from digitlab.analysis.statistics import wilson
from digitlab.config.leaves import flatten
from digitlab.data.datamodule import ImageData
from digitlab.platform import console, machine
from digitlab.plots import run_figures
from digitlab.tracking.run import Run
from digitlab.tracking.store import redact
from digitlab.training.classifier import Classifier

MISTAKES = 1000  # images that a run keeps at most of those that it got wrong


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
    run.log_figure(
        run_figures.samples(images, labels, data.classes, f"{data.name}: training images"), "figures/samples.png"
    )


def summarize(run: Run, cfg: DictConfig, data: ImageData, classifier: Classifier, weights: str, ui_hint: str) -> None:
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
            "see it": ui_hint,
        },
    )


def _layers(classifier: Classifier) -> list[tuple[str, str, str, int]]:
    summary = ModelSummary(classifier, max_depth=-1)
    rows = zip(summary.layer_names, summary.layer_types, summary.out_sizes, summary.param_nums, strict=True)
    leaves = {name for name, module in classifier.network.named_modules() if not any(module.children())}
    return [
        (name.removeprefix("network."), kind, f"({', '.join(['N', *map(str, shape[1:])])})", count)
        for name, kind, shape, count in rows
        if name.removeprefix("network.") in leaves
    ]


def command_line() -> str:
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
