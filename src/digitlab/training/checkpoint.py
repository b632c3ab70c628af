"""Exact resumption: random numbers that depend on the epoch only, and checkpoints that survive any interruption."""

import errno
import io
import math
import os
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint

from digitlab.config.errors import UserError
from digitlab.training.lightning_internals import callbacks_of, write_epoch_metrics
from digitlab.training.monitor import loss_of
from digitlab.training.user_checkpoints import follow


def reseed(seed: int, epoch: int, rank: int = 0) -> None:
    """Seed every random generator with a function of (seed, epoch, rank), the rank of one process among several."""
    # The 1 makes this stream differ from the one that orders the images (EpochOrder).
    words = np.random.SeedSequence([seed, epoch, 1, rank]).generate_state(1)  # a last 0 is as good as nothing
    pl.seed_everything(int(words[0]), verbose=False)


class ReseedEveryEpoch(Callback):
    """Seed every random generator at the start of each training epoch, so that it can be repeated by itself."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        reseed(self.seed, trainer.current_epoch)


class EpochCheckpoint(Checkpoint):
    """Save each epoch as `last.ckpt`, keep the one before it as `previous.ckpt`, and the best one as `best.ckpt`.

    The best epoch is the first with the lowest val/loss, or with the fewest errors where `monitor` is val/acc.
    Lightning's ModelCheckpoint stores the best one as an absolute path, which is lost when the folder moves. This
    callback stores its number, and the id of the run.
    """

    folder: Path
    run: str
    flush: Callable[[], None]  # writes the metrics of the epoch
    share: Callable[[str], None]  # uploads the newest checkpoint, of this name, if the store is a server

    def __init__(self, monitor: str = "val/loss"):
        self.monitor = monitor
        self.best_loss, self.best_epoch, self.epoch, self.finished = math.inf, 0, 0, False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loss = loss_of(trainer.callback_metrics, self.monitor)
        loss = math.inf if math.isnan(loss) else loss
        self.epoch = trainer.current_epoch + 1
        self.finished = trainer.should_stop or self.epoch == trainer.max_epochs
        write_epoch_metrics(trainer)
        self.flush()  # before the checkpoint, so that every saved epoch has its metrics
        is_best = self.best_epoch == 0 or loss < self.best_loss
        if is_best:
            self.best_loss, self.best_epoch = loss, self.epoch
            trainer.save_checkpoint(self.folder / "best.ckpt")
        last = self.folder / "last.ckpt"
        if last.exists():
            os.replace(last, self.folder / "previous.ckpt")
        trainer.save_checkpoint(last)
        self.share("best.ckpt" if is_best else last.name)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for callback in callbacks_of(trainer):
            if isinstance(callback, ModelCheckpoint) and callback.state_key in checkpoint["callbacks"]:
                follow(callback, checkpoint["callbacks"][callback.state_key])

    def state_dict(self) -> dict:
        return {name: getattr(self, name) for name in ("run", "best_loss", "best_epoch", "epoch", "finished")}

    def load_state_dict(self, state_dict: dict) -> None:
        vars(self).update(state_dict)


class DurableCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically: a file is whole or not there, whatever happens while it is written.

    Lightning writes in $TMPDIR without fsync, then moves the file onto the old checkpoint; across file systems that is
    a copy, so a full disk destroys the old checkpoint. This class writes beside the target, syncs, reads back, then
    replaces. Any failure raises an OSError that names the file, which is unchanged, and removes the temporary file; a
    callback whose state has become unreadable, a UserError.
    """

    def save_checkpoint(self, checkpoint: dict, path: str | os.PathLike, storage_options=None) -> None:
        path = Path(path)
        temporary = path.with_name(f".{path.name}.new")
        content = io.BytesIO()
        torch.save(checkpoint, content)  # not to the file: its error for a full disk has no errno
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
            for key, state in checkpoint.get("callbacks", {}).items() if isinstance(error, DamagedError) else ():
                check_state(f"trainer.callbacks: {key}", state)
            number, reason = (error.errno, error.strerror) if isinstance(error, OSError) else (errno.EIO, str(error))
            raise OSError(number, reason, str(path)) from error


def check_state(key: str, state: Any) -> None:
    """Raise UserError for a state of `key` that a checkpoint could hold, and could not be read from it."""
    content = io.BytesIO()
    try:
        torch.save(state, content)
        content.seek(0)
        torch.load(content, weights_only=True)
    except Exception as error:
        raise UserError(f"{key}: its state must be of tensors, numbers, text, lists and dicts, to be saved") from error


class DamagedError(Exception):
    """A checkpoint cannot be read back as it was written, or is that of another run."""


class Saved(NamedTuple):
    """An intact checkpoint: its file, the number of trained epochs, the best of them, whether training is finished."""

    file: Path
    epoch: int
    best_epoch: int
    finished: bool


def saved_checkpoints(folder: Path, run: str) -> dict[str, Saved]:
    """Return by name the intact checkpoints of `run` in `folder`; rename the others, with a warning, to *.damaged."""
    found = {}
    for name in ("last", "previous", "best"):
        file = folder / f"{name}.ckpt"
        if file.exists():
            try:
                found[name], _ = read_checkpoint(file, run)
            except DamagedError as error:
                renamed = file.with_name(f"{file.name}.damaged")  # so that it is not rotated to previous.ckpt
                warnings.warn(f"{file} {error}: not used, renamed to {renamed.name}", stacklevel=2)
                os.replace(file, renamed)
    return found


def resume_from(folder: Path, run: str, tested: str, recorded: int) -> Saved | None:
    """Return the checkpoint from which training continues; None where it must start from the beginning.

    It is the newest whose points the store has, which are those of `recorded` epochs, and whose `tested` weights are
    there: "last" are its own, "best" those of its best epoch. Write TESTED.ckpt again where only another file has them.
    """
    saved = saved_checkpoints(folder, run)
    by_epoch = {each.epoch: each for each in saved.values()}
    if max(by_epoch, default=0) > recorded:
        warnings.warn(
            f"the store has the points of {recorded} epochs, a checkpoint is of epoch {max(by_epoch)}: was the store "
            "restored from an older copy? what it lacks is trained again",
            stacklevel=2,
        )

    def weights(of: Saved) -> Saved | None:
        return by_epoch.get(of.best_epoch) if tested == "best" else of

    usable = [each for each in saved.values() if each.epoch <= recorded and weights(each)]
    newest = max(usable, key=lambda each: each.epoch, default=None)
    if newest and (newest.finished or tested == "best"):
        source = weights(newest)
        assert source  # else it would not be usable
        if tested not in saved or saved[tested].epoch != source.epoch:
            DurableCheckpointIO().save_checkpoint(load_whole(source.file), folder / f"{tested}.ckpt")
    return newest


def load_tested(file: Path, run: str) -> tuple[int, dict]:
    """Return epoch and weights of the checkpoint to be tested; raise OSError if it is damaged, gone or not of `run`."""
    try:
        saved, content = read_checkpoint(file, run)
    except DamagedError as error:
        reason = f"{error}; the same command trains the epochs again that are lost with it"
        raise OSError(errno.EIO, reason, str(file)) from error
    return saved.epoch, content["state_dict"]


def read_checkpoint(file: Path, run: str) -> tuple[Saved, dict]:
    """Return the state and the content of a checkpoint; raise DamagedError if it is damaged or not of `run`."""
    content = load_whole(file)
    state = content.get("callbacks", {}).get(EpochCheckpoint.__qualname__, {})
    if state.get("run") != run:
        raise DamagedError("is not of this run")
    return Saved(file, state["epoch"], state["best_epoch"], state["finished"]), content


def load_whole(file: Path) -> dict:
    """Load a checkpoint; raise DamagedError if it cannot be read back as it was written."""
    try:
        with zipfile.ZipFile(file) as archive:  # torch.load does not check the checksums
            damaged = archive.testzip()
        content = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # which one depends on where the damage is
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
