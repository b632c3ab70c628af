"""Make an interrupted run end as if nothing had happened: signals, noise per epoch, checkpoints that survive."""

import math
import os
import signal
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the program at once, through every `finally`, with the shell's codes 130 and 143."""

    def leave(number: int, _) -> None:
        for each in handlers:
            signal.signal(each, signal.SIG_IGN)  # the second one must not interrupt what the first one set going
        print("\ninterrupted; the same command continues after the last finished epoch", file=sys.stderr)
        sys.exit(128 + number)

    handlers = {each: signal.signal(each, leave) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


class EpochNoise(Callback):
    """Seed every random generator at the start of each training epoch with a function of (seed, epoch) alone."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # The trailing word keeps this stream apart from the one that orders the images (data.EpochOrder).
        words = np.random.SeedSequence([self.seed, trainer.current_epoch, 1]).generate_state(1)
        pl.seed_everything(int(words[0]), verbose=False)


class EpochCheckpoint(Checkpoint):
    """Save `last.ckpt` after each epoch, keeping the one before as `previous.ckpt`, and the best one as `best.ckpt`.

    Best is the lowest val/loss, the first of equals. Lightning's ModelCheckpoint remembers its best by an absolute path
    and forgets it when the folder moves; this one remembers the number.
    """

    folder: Path

    def __init__(self):
        self.best_loss, self.best_epoch, self.epoch, self.finished = math.inf, 0, 0, False

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        loss = float(trainer.callback_metrics["val/loss"])
        loss = math.inf if math.isnan(loss) else loss
        self.epoch = trainer.current_epoch + 1
        self.finished = trainer.should_stop or self.epoch == trainer.max_epochs
        for logger in trainer.loggers:
            logger.save()  # points first: an epoch that has its checkpoint has its points
        if self.best_epoch == 0 or loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, self.epoch
            trainer.save_checkpoint(self.folder / "best.ckpt")
        last = self.folder / "last.ckpt"
        if last.exists():
            os.replace(last, self.folder / "previous.ckpt")
        trainer.save_checkpoint(last)
        for logger in trainer.loggers:
            logger.after_save_checkpoint(self)

    def state_dict(self) -> dict:
        return {name: getattr(self, name) for name in ("best_loss", "best_epoch", "epoch", "finished")}

    def load_state_dict(self, state: dict) -> None:
        vars(self).update(state)


class DurableCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint so that its name never stands for less than all of it, whatever happens meanwhile.

    Lightning writes in $TMPDIR and moves: without fsync, and across file systems onto the old file, so that a full disk
    destroys the good checkpoint. This writes beside the target, syncs, reads back, then replaces.
    """

    def save_checkpoint(self, checkpoint: dict, path: str | os.PathLike, storage_options=None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if not is_whole(temporary):
                raise OSError(f"{path}: what was written does not read back")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


def is_whole(checkpoint: Path) -> bool:
    """Say whether a checkpoint is there and reads back as it was written."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:  # torch.load does not look at the checksums
            if archive.testzip() is not None:
                return False
        torch.load(checkpoint, weights_only=True, map_location="cpu")
    except Exception:  # what damage raises depends on where it is
        return False
    return True


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint in `folder` that can be read whole, or None."""
    files = (folder / name for name in ("last.ckpt", "previous.ckpt", "best.ckpt"))
    return next(filter(is_whole, files), None)


def read_progress(checkpoint: Path) -> tuple[int, bool]:
    """Return how many epochs a checkpoint has behind it, and whether its run needs no more."""
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")["callbacks"][EpochCheckpoint.__qualname__]
    return state["epoch"], state["finished"]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
