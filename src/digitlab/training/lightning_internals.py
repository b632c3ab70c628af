"""Every use of Lightning's private parts; tests/training/test_lightning_internals.py fails when they change."""

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from digitlab.data.datamodule import ImageData


def callbacks_of(trainer: pl.Trainer) -> list[pl.Callback]:
    """Return the callbacks of a trainer; the attribute is set from outside its class, where type checkers miss it."""
    return trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]


def datamodule_of(trainer: pl.Trainer) -> ImageData:
    """Return what gives a trainer its batches; this attribute too is set from outside its class."""
    return trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]


def count_optimizer_steps(trainer: pl.Trainer, count: int) -> None:
    """Add `count` optimizer steps to `trainer.global_step`, because Lightning counts only those of its own wrapper."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for steps in (progress.total, progress.current):
        steps.ready += count
        steps.completed += count


def write_epoch_metrics(trainer: pl.Trainer) -> None:
    """Send what callbacks logged over this epoch to the logger now, before the checkpoint is written.

    Lightning would send it after every callback's on_train_epoch_end; then it finds nothing left to send.
    """
    trainer._logger_connector.update_train_epoch_metrics()


def step_of_metrics(trainer: pl.Trainer) -> int:
    """Return the step for what is logged now: the optimizer steps within an epoch, the finished epochs after it.

    Lightning's own step counts its batches, each of which may be many optimizer steps.
    """
    if trainer.state.fn != TrainerFn.FITTING:
        return trainer.current_epoch
    is_epoch_over = trainer.validating or trainer._logger_connector._first_loop_iter is None
    return trainer.current_epoch + 1 if is_epoch_over else trainer.global_step
