"""Losses of every network with every optimizer, recorded: a change of code that changes a number is seen.

`python tests/training/recorded_losses.py` (make record-losses) writes the table anew, on purpose.
"""

import json
import math
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pytorch_lightning.loggers.logger import Logger

TABLE = Path(__file__).with_suffix(".json")
CONF = Path(__file__).parents[2] / "conf"
MODELS = ("mlp", "cnn_simple", "cnn_pool", "cnn_single_5x5", "cnn_double_3x3", "cnn_double_5x5", "cnn_dense1000",
          "cnn_wide", "cnn_pool_wide")  # fmt: skip
OPTIMIZERS = ("adam", "sgd", "adadelta")
# 10 classes of 24 drawn images: 180 to train in 5 batches; the second epoch has another order and other noise.
SMALL = ("data=image_folder", "trainer=cpu", "data.test_fraction=0.125", "data.val_fraction=0.125",
         "data.batch_size=36", "trainer.max_epochs=2")  # fmt: skip
WIDE = ("data.skip_first=216", "data.test_fraction=0.25", "data.val_fraction=0.25", "data.batch_size=4",
        "trainer.max_epochs=1")  # fmt: skip
EXTRAS = {
    "cosine": ("scheduler=cosine",),
    "one_cycle": ("scheduler=one_cycle",),
    "augmented": ("data.augment.shift=2", "data.augment.rotate=15"),
    "clipped gradients": ("+trainer.gradient_clip_val=0.1",),
    "clipped loss": ("loss=clipped_cross_entropy", "data.normalize=false"),
    "embedded images": ("data=mnist5k", "data.skip_first=4400"),
    "no dropout": ("model.dropout=false",),
    "PyTorch's initial weights": ("model.init=torch",),
    "another seed": ("seed=7",),
    "another split": ("data.split_seed=7", "data.split=stratified"),
    **{optim: (f"optim={optim}",) for optim in ("adamw", "rmsprop", "sgd_momentum")},
}  # fmt: skip
CASES: dict[str, tuple[str, ...]] = {
    **{
        f"{model} {optim}": (*SMALL, f"model={model}", f"optim={optim}", *(WIDE if "wide" in model else ()))
        for model in MODELS
        for optim in OPTIMIZERS
    },
    **{name: (*SMALL, "model=cnn_simple", *changes) for name, changes in EXTRAS.items()},
}
CURE = (
    "losses have changed: if that is meant, raise RESULTS in config/fingerprint.py, run the claims that it "
    "touches again, and write the table anew (make record-losses)"
)


class Kept(Logger):
    """In place of MLflow's logger: the losses, by key, in order."""

    name, version = "kept", "0"

    def __init__(self):
        super().__init__()
        self.losses: dict[str, list[float]] = {"train/loss_step": [], "val/loss": []}

    def log_metrics(self, metrics, step=None):
        for key in self.losses.keys() & metrics.keys():
            self.losses[key].append(metrics[key])

    def log_hyperparams(self, *_, **__):
        pass


def losses(name: str) -> dict[str, list[float]]:
    """Train one case as the pipeline does, but without a store; return its losses by key."""
    with _one_thread(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        overrides = [*CASES[name]]
        if "data=mnist5k" not in overrides:
            overrides.append(f"data.root={_draw_images(Path(folder))}")
        trainer, classifier, data = _set_up(overrides)
        logger = trainer.logger = Kept()
        for callback in [each for each in trainer.callbacks if hasattr(each, "best_loss") or hasattr(each, "bar")]:
            trainer.callbacks.remove(callback)  # nothing is saved or shown
        trainer.validate(classifier, data, verbose=False)
        trainer.fit(classifier, data)
        trainer.test(classifier, data, verbose=False)
        return {**logger.losses, "test/loss": [classifier.results["test/loss"]]}


def _set_up(overrides):
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from digitlab.training.setup import assemble, identify

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg, data, _ = identify(compose("train", overrides))
    GlobalHydra.instance().clear()
    classifier, trainer = assemble(cfg, data)
    return trainer, classifier, data


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order of a sum hangs on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _draw_images(folder: Path) -> Path:
    """Write 24 images of each of ten classes: a bar of its own place and slope in noise."""
    noise = np.random.default_rng(0)
    rows, columns = np.mgrid[:28, :28]
    for label in range(10):
        (folder / str(label)).mkdir()
        for number in range(24):
            place = 4 + 2 * label + noise.integers(-1, 2)
            bar = np.abs(columns - place + (label % 3 - 1) * (rows - 14) // 3) < 2
            pixels = noise.integers(0, 130, (28, 28)) + 120 * bar
            Image.fromarray(pixels.astype(np.uint8)).save(folder / str(label) / f"{number:02}.png")
    return folder


def machine() -> dict[str, str]:
    """What the last bits hang on."""
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__.partition("+")[0],
    }


def wrong(name: str, found: Mapping[str, list[float]] | None = None) -> str:
    """Say what is wrong with the losses of a case; nothing where they are those of the table.

    To the last bit on the machine that wrote the table, to 1e-5 elsewhere.
    """
    table = json.loads(TABLE.read_text())
    recorded = {key: [float.fromhex(value) for value in values] for key, values in table["losses"][name].items()}
    found = found or losses(name)
    tolerance = 0.0 if table["machine"] == machine() else 1e-5
    for key, values in recorded.items():
        ours = found.get(key, [])
        same = len(ours) == len(values) and all(
            math.isclose(one, other, rel_tol=tolerance, abs_tol=0) for one, other in zip(values, ours, strict=True)
        )
        if not same:
            return f"{name}, {key}: {ours} where {values} was recorded; {CURE}"
    return ""


def main() -> None:
    found = {name: losses(name) for name in CASES}
    written = {
        name: {key: [value.hex() for value in values] for key, values in of.items()} for name, of in found.items()
    }
    TABLE.write_text(json.dumps({"machine": machine(), "losses": written}, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(CONF.parent / "src"))
    main()
