"""Record a run: its configuration and code, then its results."""

import hashlib
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.model_summary.model_summary import ModelSummary

from digitlab import REPOSITORY
from digitlab.config.allowed import as_word
from digitlab.config.fingerprint import own_code
from digitlab.config.leaves import as_text, flatten, is_within
from digitlab.data.ground import is_on_black
from digitlab.documents.format import interval
from digitlab.models.predictor import Predictor
from digitlab.platform import console, git, machine
from digitlab.platform.secrets import redact
from digitlab.platform.text import printable, shorten
from digitlab.plots import run_figures
from digitlab.plots.style import undrawable
from digitlab.tracking import notes, queries
from digitlab.tracking.run import Run
from digitlab.training.classifier import Classifier
from digitlab.training.setup import Job
from digitlab.training.steps import RATE
from digitlab.training.trial import why_not_exported

STAGES = ("train", "val", "test")
MISTAKES = 1000  # misclassified images that a run stores at most


def describe(run: Run, job: Job) -> None:
    """Record the configuration, code, environment, layers and data of a run."""
    names, data, classifier = job.names, job.data, job.classifier
    layers = console.draw_layers(_layers(classifier))
    if not job.is_cell:
        console.say(layers)
    withheld = ("tracking", "names", "report", "vs")  # an address may hold a password
    cfg = OmegaConf.masked_copy(job.cfg, [str(key) for key in job.cfg if key not in withheld])
    environment = machine.environment()
    params = {key: text for key, text in flatten(cfg).items() if not is_within(key, job.from_environment)}
    for key, written in job.from_environment.items():
        if key.partition(".")[0] in cfg:
            OmegaConf.update(cfg, key, written)
            params[key] = written
    run.log_params({**names, **params, "parameters": str(sum(each.numel() for each in classifier.parameters()))})
    code, patch = _code(cfg)
    run.log_tags({**names, **code, **_own_code(cfg), "environment": environment})
    if job.is_cell:
        run.log_tags({"mlflow.parentRunId": cfg.sweep.parent, "sweep": str(cfg.sweep.name)})
    run.log_text(OmegaConf.to_yaml(OmegaConf.merge({"groups": names}, cfg)), "config.yaml")
    run.log_text(environment, "environment.txt")
    if patch:
        run.log_bytes(patch, "uncommitted.patch")
    run.log_text(layers, "model_summary.txt")
    _say_without_model(run)
    run.log_dataset(data.ready.name, data.digest, data.sizes, source=str(data.root or data.file or data.ready.name))
    some = np.random.default_rng(0).permutation(data.sizes["train"])[:40]  # the first 40 may be of one class
    if (lacking := undrawable((data.ready.name, *data.classes))) and not job.is_cell:
        console.warn(f"figures show boxes for some signs of {shorten(', '.join(lacking))}: their font lacks them")
    images, labels = (tensor[some].numpy() for tensor in data.splits["train"])
    figure = run_figures.samples(images, labels, data.classes, f"{data.ready.name}: training images")
    run.log_figure(figure, "figures/samples.png")


def conclude(run: Run, job: Job, epoch: int) -> None:
    """Record the predictions on the test images, the figures, and the model after `epoch`."""
    data, classifier = job.data, job.classifier
    images, labels = (tensor.numpy() for tensor in data.splits["test"])
    probabilities = classifier.probabilities
    predicted, classes = probabilities.argmax(1), np.array(data.classes)
    misclassified = np.flatnonzero(predicted != labels)[:MISTAKES]  # with images, so that a report needs no data
    shown = {"misclassified": misclassified, "misclassified_images": images[misclassified]}
    run.log_arrays("predictions.npz", probabilities=probabilities, labels=labels, classes=classes, **shown)

    # The name of a LoggedModel may hold no other characters.
    model = re.sub(r"[^\w-]", "_", "{model}-{optim}-s{seed}".format_map(job.names))
    on = f"{model} on {data.ready.name}"
    curves = {f"{stage}/{name}": run.history(f"{stage}/{name}") for name in ("loss", "acc") for stage in STAGES}
    figures = {"curves": run_figures.curves(curves, on)}
    figures |= run_figures.predictions(images, labels, probabilities, data.classes, on, "test images")
    for name, figure in figures.items():
        run.log_figure(figure, f"figures/{name}.png")
    if job.cfg.trainer.precision == "bf16-true":
        classifier.network.float()  # the weights as they are, in what every machine and format computes in
    try:
        example = np.resize(images, (2, *images.shape[1:]))  # two, where there is one: see export_program
        told: dict[str, Any] = {"on_black": is_on_black(data.splits["train"][0])}
        told |= {"reading": data.ready.reading.plain()} if data.ready.reading else {}
        run.log_model(model, Predictor(data.preprocess, classifier.network), example, epoch, data.classes, **told)
    except Exception:
        run.without_model = why_not_exported(classifier.network, data)  # what training left can differ from the start
        if not run.without_model:
            raise
        run.delete_models()
        _say_without_model(run)


def _say_without_model(run: Run) -> None:
    if run.without_model:
        run.log_tags({"without_model": run.without_model})
        console.warn(f"no model is logged, all else is: {run.without_model}")


def write_note(run: Run, job: Job, weights: str, best: float) -> None:
    """Describe the run in MLflow: its result, tested with `weights`, the command, how to load the model; and its best.

    `best` is the highest val/acc, by which runs are found.
    """
    result = f"Test accuracy {_accuracy(job)}, {weights}" if weights else f"Best val/acc {best:.4f}, not tested"
    model = f"runs:/{run.id}/{run.model}" if weights and not run.without_model else ""
    digits = np.format_float_positional(best)  # never as 1e-05
    run.log_tags({notes.TAG: notes.of_run(result, command_line(), model), queries.BEST: digits})


def show_done(done: Any, directions: str) -> None:
    """Print that a run is done already, and its results."""
    info, metrics = done.info, done.data.metrics
    console.say(f"{info.run_name} is done already (run {info.run_id}); rerun=true runs it again")
    tested = "not tested"
    if "test/acc" in metrics:
        tested = f"test accuracy {metrics['test/acc']:.4f}, test loss {metrics['test/loss']:.4f}"
    console.say(f"{tested}; see it: {directions}")


def summarize(run: Run, job: Job, weights: str, directions: str) -> None:
    """Print the results of a run."""
    data, results = job.data, job.classifier.results
    sizes = ", ".join(f"{count:,} {stage}" for stage, count in data.sizes.items())
    if not np.isfinite(results["test/loss"]):
        console.warn("the test loss is not finite: the run diverged; a lower optim.lr may help")
    accuracy = _accuracy(job)
    others = [f"{name} {results[f'test/{name}']:.4f}" for name in job.classifier.metrics]
    if job.is_cell:
        console.say(f"{run.name}: test accuracy {accuracy}")
        return
    _, seconds = run.history("time/epoch_s")
    _, rates = run.history(RATE)
    console.show_summary(
        f"\n{run.name}",
        {
            "data": f"{data.ready.name}: {data.num_classes} classes, {sizes}",
            "test accuracy": accuracy,
            "test loss": f"{results['test/loss']:.4f}",
            **({"test metrics": ", ".join(others)} if others else {}),
            "weights": f"{weights} ({job.cfg.evaluate_on})",
            "time": f"{sum(seconds):.1f} s in training passes, {np.median(rates):,.0f} images/s",
            "run": run.id,
            "model": "not logged" if run.without_model else f"runs:/{run.id}/{run.model}",
            "checkpoint": run.locate(f"checkpoints/{job.tested_checkpoint}"),
            "see it": directions,
        },
    )


def _accuracy(job: Job) -> str:
    total, acc = job.data.sizes["test"], job.classifier.results["test/acc"]
    return f"{acc:.4f}  ({interval(acc, total)})"


def best_accuracy(run: Run) -> float:
    """Return the highest val/acc of any epoch."""
    if known := run.run.data.tags.get(queries.BEST):
        return float(known)
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


def command_line() -> str:
    """Return what was typed."""
    program, *arguments = [*sys.argv, *as_word()]
    if program.endswith(".py"):  # else it is the command as it stands, "digitlab train"
        program = f"python {shlex.quote(program)}"
    arguments = [re.sub("://.*@", "://***@", each) if _names_server(each) else redact(each) for each in arguments]
    return printable(redact(f"{program} {shlex.join(arguments)}".strip()))


def _names_server(argument: str) -> bool:
    """Say whether an argument is an address, of which all to the last @ is user and password."""
    return "tracking.uri=" in argument and "sqlite:" not in argument


def _code(cfg: DictConfig) -> tuple[dict[str, str], bytes]:
    """Return, as tags, the commit of the code and whether the code differs from it; and the difference as a patch."""
    inside = {each.stem for each in (REPOSITORY / "src").glob("*")}
    loaded = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in inside]
    ours = [Path(file) for module in loaded if (file := getattr(module, "__file__", None))]
    checkout = git.read_checkout(REPOSITORY, [*ours, *own_code(cfg).values()])
    if checkout is None:
        return {}, b""
    if checkout.is_dirty and not checkout.patch:
        console.warn(f"the uncommitted changes are not stored: more than {git.LARGEST_PATCH // 2**20} MiB")
    tags = {"mlflow.source.git.commit": checkout.commit, "git.dirty": as_text(checkout.is_dirty)}
    return tags | ({"git.patch": _digest(checkout.patch)} if checkout.patch else {}), checkout.patch


def _own_code(cfg: DictConfig) -> dict[str, str]:
    """Return, as a tag, what tells the user's own modules from others of the same names, in a checkout or not."""
    modules = own_code(cfg)
    content = b"".join(name.encode() + file.read_bytes() for name, file in sorted(modules.items()))
    return {"code.own": f"{shorten(', '.join(sorted(modules)))} ({_digest(content)})"} if modules else {}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:10]
