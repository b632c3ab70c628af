"""Mutants: changes of the code, each of which breaks one guarantee, so that a check of it must fail."""

import os
from contextlib import suppress
from pathlib import Path

import torch
from mlflow import MlflowClient

from digitlab.platform import signals
from digitlab.tracking import queries
from digitlab.tracking.logger import RunLogger
from digitlab.training import checkpoint as resume
from digitlab.training import run as training_run
from digitlab.training.checkpoint import DurableCheckpointIO, EpochCheckpoint


def no_fsync() -> None:
    os.fsync = lambda descriptor: None


def no_folder_fsync() -> None:
    resume._sync_folder = lambda folder: None


def written_in_place() -> None:
    def save(self, checkpoint: dict, path: str, storage_options=None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("wb") as file:
            torch.save(checkpoint, file)

    DurableCheckpointIO.save_checkpoint = save


def error_swallowed() -> None:
    real = DurableCheckpointIO.save_checkpoint

    def save(*args, **kwargs) -> None:
        with suppress(OSError):
            real(*args, **kwargs)

    DurableCheckpointIO.save_checkpoint = save


def not_read_back() -> None:
    real = resume.load_whole
    resume.load_whole = lambda file: None if file.suffix == ".new" else real(file)


def damage_not_seen() -> None:
    resume.load_whole = lambda file: torch.load(file, weights_only=True)


def no_rotation() -> None:
    real = os.replace
    os.replace = lambda old, new: None if Path(new).name == "previous.ckpt" else real(old, new)


def not_resumed() -> None:
    training_run.resume_from = lambda *_, **__: None


def points_after_the_checkpoint() -> None:
    real = EpochCheckpoint.on_train_epoch_end

    def save(self, trainer, module) -> None:
        write, self.flush = self.flush, lambda: None
        real(self, trainer, module)
        self.flush = write
        write()

    EpochCheckpoint.on_train_epoch_end = save


def points_twice() -> None:
    real = RunLogger.__init__

    def init(self, client, run_id, stored) -> None:
        real(self, client, run_id, {})

    RunLogger.__init__ = init


def finished_on_crash() -> None:
    real = MlflowClient.set_terminated
    MlflowClient.set_terminated = lambda self, run_id, status=None: real(self, run_id, "FINISHED")


def finished_is_done() -> None:
    queries.is_done = lambda run: run.info.status == "FINISHED"


def second_signal_interrupts() -> None:
    real = signals._exit

    def exit_again(number: int, frame) -> None:
        if signals._exiting_on:
            raise SystemExit(128 + number)
        real(number, frame)

    signals._exit = exit_again
