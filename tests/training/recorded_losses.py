"""Losses of short runs of everything that can be configured, compared with a committed table: recorded_losses.json.

`make record-losses` (python tests/training/recorded_losses.py) writes the table again.
"""

import json
import math
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from pytorch_lightning.loggers.logger import Logger

from digitlab.config.fingerprint import RESULTS
from digitlab.data.sources import mnist5k
from digitlab.platform import console
from digitlab.training.checkpoint import EpochCheckpoint
from digitlab.training.setup import assemble, identify

TABLE = Path(__file__).with_suffix(".json")
CONF = Path(__file__).parents[2] / "conf"
THREADS = 1  # which decides in which order sums are taken
ELSEWHERE = 1e-5  # how far a loss may be off, relatively, where the machine is not the one that wrote the table


def choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


# Half precision multiplies what another CPU rounds otherwise.
HALF = ("mixed with bfloat16", "weights in bfloat16", "scaled float16")
ELSEWHERE_IN_HALF = 2e-2
# Rates at which another CPU's rounding stays below 1e-5; at the usual ones adam and adadelta multiply it each step.
OPTIMIZERS = {"adam": "optim.lr=1e-4", "sgd": "optim.lr=1e-2", "adadelta": "optim.lr=0.05"}
WIDE = ("cnn_pool_wide", "cnn_wide")  # 512 channels: a few small images are enough work
# In the second epoch order and noise are others than in the first. The last batch of an epoch is a smaller one.
COMMON = ("trainer=cpu", "trainer.max_epochs=2", "trainer.callbacks.progress=null", "data.batch_size=36")
DIGITS = (*COMMON, "data=image_folder", "data.root={images}/digits")
FEW = (*DIGITS, "data.root={images}/two_digits", "data.size=12", "data.batch_size=5", "data.test_fraction=0.2")
SIMPLE = (*DIGITS, "model=cnn_simple")
CASES = {
    f"{model} {optim}": (*(FEW if model in WIDE else DIGITS), f"model={model}", f"optim={optim}", rate)
    for model in choices("model")
    for optim, rate in OPTIMIZERS.items()
}
CASES |= {optim: (*SIMPLE, f"optim={optim}") for optim in choices("optim") if optim not in OPTIMIZERS}
CASES |= {scheduler: (*SIMPLE, f"scheduler={scheduler}") for scheduler in choices("scheduler") if scheduler != "none"}
CASES |= {
    "augmentation": (*SIMPLE, "optim=sgd", "data.augment.shift=2", "data.augment.rotate=15"),
    "augmentation with the nearest pixels": (
        *SIMPLE,
        "optim=sgd",
        "data.augment.shift=2",
        "data.augment.rotate=15",
        "++data.augment.fill=nearest",
    ),
    "flips, crops and erasing": (
        *SIMPLE,
        "optim=sgd",
        "++data.augment.flip=0.5",
        "++data.augment.crop=3",
        "++data.augment.erase=0.5",
    ),
    "clipped gradients": (*SIMPLE, "optim=sgd", "++trainer.gradient_clip_val=0.5"),
    "clipped loss": (*SIMPLE, "loss=clipped_cross_entropy", "data.normalize=false"),
    "no dropout": (*SIMPLE, "model.dropout=false"),
    "torch's init": (*SIMPLE, "model.init=torch"),
    "other initial values": (*SIMPLE, "model.init={weights: he_normal, biases: {normal: 0.1}}"),
    "other blocks": (
        *SIMPLE,
        "model.blocks=[{channels: 8, padding: same, activation: silu, pool: 3, pool_stride: 2, dropout: 0.25},"
        "{channels: 8, activation: elu, pool: 2, pool_kind: average, dropout: 0.1}]",
        "+model.output={activation: tanh, init: {weights: 0.01}}",
    ),
    "biases apart": (
        *SIMPLE,
        "optim=sgd_momentum",
        "++optim.weight_decay=0.1",
        "++optim.bias={lr: 0.02, weight_decay: 0}",
        "scheduler=step",
        "scheduler.step_size=3",
    ),
    "quadratic loss": (*SIMPLE, "loss={_target_: digitlab.training.quadratic_loss.QuadraticLoss}"),
    "binary loss": (*SIMPLE, "loss={_target_: digitlab.training.binary_loss.SoftmaxBinaryLoss}"),
    "whole channels dropped": (
        *SIMPLE,
        "model.blocks=[{channels: 8, pool: 2, spatial_dropout: 0.25}]",
        "+model.output={activation: logsigmoid}",
    ),
    "a fold": (*SIMPLE, "++data.folds=4", "++data.fold=6", "data.split=test"),
    "batch norm": (
        *SIMPLE,
        "optim=sgd_momentum",
        "model.blocks=[{channels: 8, pool: 2, batch_norm: before},"
        "{channels: 8, dropout: 0.1, batch_norm: {place: after, eps: 1e-3, momentum: 0.01, weights: uniform}}]",
        "+model.hidden=[{units: 16, batch_norm: {place: after, track_running_stats: false}}]",
    ),
    "images normalized, weights limited": (
        *SIMPLE,
        "optim=sgd_momentum",
        "optim._target_=digitlab.training.max_norm.MaxNormSGD",
        "+optim.max_norm=0.6",
        "optim.lr=0.05",
        "model._target_=digitlab.models.input_norm.InputNormNet",
        "+model.axis=columns",
        "model.blocks=[{channels: 8, kernel: 4, padding: same, pool: 3, pool_ceil_mode: true}]",
        "+model.hidden=[{units: 16}]",
    ),
    "gradients added up": (*SIMPLE, "optim=sgd", "++trainer.accumulate_grad_batches=2"),
    "averaged weights": (*SIMPLE, "optim=sgd_momentum", "++averaging={kind: ema, decay: 0.8}"),
    "the mean of the last weights": (
        *SIMPLE,
        "optim=sgd_momentum",
        "model.blocks=[{channels: 8, pool: 2, batch_norm: before, dropout: 0.1}]",
        "++averaging={kind: swa, start: 0.0}",
    ),
    "mixed with bfloat16": (*SIMPLE, "trainer.precision=bf16-mixed"),
    "weights in bfloat16": (*SIMPLE, "trainer.precision=bf16-true", "++averaging={kind: swa, start: 0.0}"),
    "scaled float16": (*DIGITS, "model=mlp", "trainer.precision=16-mixed", "++trainer.gradient_clip_val=0.5"),
    "another seed": (*SIMPLE, "seed=1"),
    "last images": (*SIMPLE, "data.split=last", "data.skip_first=10"),
    "in the folder's order": (*SIMPLE, "++data.shuffle=false", "++data.drop_last=true", "data.split=first"),
    "so many steps": (*SIMPLE, "++trainer.max_steps=5", "scheduler=cosine"),
    "a plain draw": (*SIMPLE, "data.split=random", "data.split_seed=2"),
    "validated on the test": (*SIMPLE, "data.split=test", "data.split_seed=1"),
    "mnist5k": (*COMMON, "model=mlp", "data=mnist5k", "data.val_fraction=0.2", "data.test_fraction=0.6"),
}

Losses = Mapping[str, list[float]]  # by name, in the order of the steps or epochs


class Recorder(Logger):
    """Keep the losses that are logged, in memory."""

    name = version = None

    def __init__(self):
        super().__init__()
        self.losses: dict[str, list[float]] = {"train/loss_step": [], "val/loss": []}

    def log_hyperparams(self, *_args, **_kwargs) -> None:
        pass

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for key in self.losses.keys() & metrics.keys():
            self.losses[key].append(float(metrics[key]))


def train_case(name: str, images: Path) -> Losses:
    """Do what the command line would with a case's overrides, without a store; return its losses."""
    with _fixed_threads():
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", [override.replace("{images}", str(images)) for override in CASES[name]])
        cfg, data, _ = identify(cfg)
        classifier, trainer = assemble(cfg, data)
        trainer.callbacks = [each for each in trainer.callbacks if not isinstance(each, EpochCheckpoint)]
        trainer.logger = recorder = Recorder()
        trainer.validate(classifier, data, verbose=False)
        trainer.fit(classifier, data)
        trainer.test(classifier, data, verbose=False)
    return recorder.losses | {"test/loss": [classifier.results["test/loss"]]}


def write_images(folder: Path) -> Path:
    """Write embedded images into the class folders that the cases train on: 16 of each digit, 10 of each of two."""
    images, labels = mnist5k().train
    for name, digits, count in (("digits", range(10), 16), ("two_digits", (4, 9), 10)):
        for digit in digits:
            place = folder / name / str(digit)
            place.mkdir(parents=True)
            for number, pixels in enumerate(images[labels == digit][:count].numpy()):
                Image.fromarray(pixels).save(place / f"{number:02}.png")
    return folder


def machine() -> dict[str, str | int]:
    """Return what the last bits of a loss depend on."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    fields = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", text, re.M))
    model = [fields[key] for key in ("model name", "cpu family", "model", "stepping") if key in fields]
    flags = sorted(re.findall(r"\b(?:avx|fma|amx)\w*", fields.get("flags", "")))
    return {
        "cpu": " ".join(model) or platform.processor() or platform.machine(),
        "instructions": " ".join([torch.backends.cpu.get_cpu_capability(), *flags]),
        "torch": torch.__version__,
        "threads": THREADS,
    }


def difference(name: str, losses: Losses, table: Mapping) -> str | None:
    """Say in one sentence where the losses of a case are not those of the table; None where they are.

    They are to be equal on the machine that wrote the table, and within `ELSEWHERE` of one another on any other; of the
    rows that another machine added, everywhere.
    """
    if name not in table["losses"]:
        return f"{name}: has no recorded losses yet: add them to the table (make record-losses)"
    is_here = table["machine"] == machine() and name not in table.get("elsewhere", ())
    tolerance = 0.0 if is_here else ELSEWHERE_IN_HALF if name in HALF else ELSEWHERE
    recorded = {key: [float.fromhex(text) for text in line.split()] for key, line in table["losses"][name].items()}
    for key in recorded | losses:
        pairs = zip_longest(recorded.get(key, []), losses.get(key, []), fillvalue=math.nan)
        for number, (before, now) in enumerate(pairs):
            if not math.isclose(before, now, rel_tol=tolerance):
                return (
                    f"{name}: {key}[{number}] is {now!r}, recorded is {before!r}: if that is meant, raise RESULTS, "
                    "run again the claims that it touches, and write the table again (make record-losses)"
                )
    return None


def read_table() -> dict:
    return json.loads(TABLE.read_text())


def write_table() -> None:
    """Run every case and write the table; refuse where losses changed and RESULTS did not.

    On another machine than that of the table, rows are added to it and none is changed.
    """
    table = read_table() if TABLE.exists() else {"RESULTS": None}
    is_current = table["RESULTS"] == RESULTS
    with TemporaryDirectory() as folder:
        images = write_images(Path(folder))
        found = {name: train_case(name, images) for name in CASES}
    if is_current:
        differences = [difference(name, found[name], table) for name in CASES if name in table["losses"]]
        changed = [each for each in differences if each]
        if changed:
            sys.exit(f"error: {len(changed)} cases changed, and RESULTS is still {RESULTS}; {changed[0]}")
    losses = {name: {key: " ".join(map(float.hex, values)) for key, values in of.items()} for name, of in found.items()}
    content = {"RESULTS": RESULTS, "machine": machine(), "losses": losses}
    if is_current and table["machine"] != machine():
        kept = {name: row for name, row in table["losses"].items() if name in CASES}
        elsewhere = losses.keys() - kept.keys() | kept.keys() & set(table.get("elsewhere", ()))
        content = table | {"elsewhere": sorted(elsewhere), "losses": losses | kept}
    TABLE.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{len(found)} cases written to {TABLE.name}")


@contextmanager
def _fixed_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    console.prepare()
    write_table()
