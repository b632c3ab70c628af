"""Make an interrupted run end as if nothing had happened: noise per epoch, checkpoints that survive."""

import errno
import io
import math
import os
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint

from digitlab.training.lightning_internals import write_epoch_metrics


class ReseedEveryEpoch(Callback):
    """Seed every random generator at the start of each training epoch with a function of (seed, epoch) alone."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # The trailing word keeps this stream apart from the one that orders the images (data.EpochOrder).
        words = np.random.SeedSequence([self.seed, trainer.current_epoch, 1]).generate_state(1)
        pl.seed_everything(int(words[0]), verbose=False)


class EpochCheckpoint(Checkpoint):
    """Save `last.ckpt` after each epoch, keeping the one before as `previous.ckpt`, and the best one as `best.ckpt`.

    Best is the lowest val/loss, the first of equals. Lightning's ModelCheckpoint remembers its best by an absolute path
    and forgets it when the folder moves; this one remembers the number, and the id of the run that it saves.
    """

    folder: Path
    run: str
    flush: Callable[[], None]  # writes the points of the epoch
    share: Callable[[], None]  # brings the checkpoints to where the store keeps artifacts

    def __init__(self):
        self.best_loss, self.best_epoch, self.epoch, self.finished = math.inf, 0, 0, False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loss = float(trainer.callback_metrics["val/loss"])
        loss = math.inf if math.isnan(loss) else loss
        self.epoch = trainer.current_epoch + 1
        self.finished = trainer.should_stop or self.epoch == trainer.max_epochs
        write_epoch_metrics(trainer)
        self.flush()  # points first: an epoch that has its checkpoint has its points
        if self.best_epoch == 0 or loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, self.epoch
            trainer.save_checkpoint(self.folder / "best.ckpt")
        last = self.folder / "last.ckpt"
        if last.exists():
            os.replace(last, self.folder / "previous.ckpt")
        trainer.save_checkpoint(last)
        self.share()

    def state_dict(self) -> dict:
        return {name: getattr(self, name) for name in ("run", "best_loss", "best_epoch", "epoch", "finished")}

    def load_state_dict(self, state_dict: dict) -> None:
        vars(self).update(state_dict)


class DurableCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically: a file is whole or not there, whatever happens while it is written.

    Lightning writes in $TMPDIR and moves: without fsync, and across file systems onto the old file, so that a full disk
    destroys the good checkpoint. This writes beside the target, syncs, reads back, then replaces. Whatever fails raises
    an OSError that names the file, which stays as it was; nothing of what was half written is used again.
    """

    def save_checkpoint(self, checkpoint: dict, path: str | os.PathLike, storage_options=None) -> None:
        path = Path(path)
        temporary = path.with_name(f".{path.name}.new")
        content = io.BytesIO()
        torch.save(checkpoint, content)  # writing to a file, it would tell of a full disk in words of its own
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            load_whole(temporary)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except (OSError, DamagedError) as error:
            with suppress(OSError):
                temporary.unlink()
            number, words = (error.errno, error.strerror) if isinstance(error, OSError) else (errno.EIO, str(error))
            raise OSError(number, words, str(path)) from error


class DamagedError(Exception):
    """A checkpoint that does not read back as it was written, or is another run's."""


class Saved(NamedTuple):
    """A checkpoint that reads back: its file, how many epochs it has behind it, whether its run needs no more."""

    file: Path
    epoch: int
    finished: bool


def saved_checkpoints(folder: Path, run: str) -> dict[str, Saved]:
    """Return by name the checkpoints of `run` in `folder`; set aside, with a warning, what cannot be used."""
    found = {}
    for name in ("last", "previous", "best"):
        file = folder / f"{name}.ckpt"
        if file.exists():
            try:
                found[name] = read_checkpoint(file, run)
            except DamagedError as error:
                aside = file.with_name(f"{file.name}.damaged")  # where it never takes the place of a good one
                warnings.warn(f"{file} {error}: not used, set aside as {aside.name}", stacklevel=2)
                os.replace(file, aside)
    return found


def newest_checkpoint(folder: Path, run: str, tested: str) -> Saved | None:
    """Return the checkpoint that training continues from; None where it begins.

    Where the `tested` weights are the best ones and are gone, only training from the start brings them back.
    """
    saved = saved_checkpoints(folder, run)
    if tested == "best" and "best" not in saved:
        return None
    return max(saved.values(), key=lambda each: each.epoch, default=None)


def read_checkpoint(file: Path, run: str) -> Saved:
    """Return what a checkpoint says of itself; raise DamagedError if it is not whole or not of `run`."""
    state = load_whole(file).get("callbacks", {}).get(EpochCheckpoint.__qualname__, {})
    if state.get("run") != run:
        raise DamagedError("is not of this run")
    return Saved(file, state["epoch"], state["finished"])


def load_whole(file: Path) -> dict:
    """Load a checkpoint; raise DamagedError if it does not read back as it was written."""
    try:
        with zipfile.ZipFile(file) as archive:  # torch.load does not look at the checksums
            damaged = archive.testzip()
        content = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # what damage raises depends on where it is
        raise DamagedError("does not read back") from error
    if damaged:
        raise DamagedError("does not read back")
    return content


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
