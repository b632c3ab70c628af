"""What reaches into private parts of Lightning; tests/training/test_lightning_internals.py fails when they change."""

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn


def callbacks_of(trainer: pl.Trainer) -> list[pl.Callback]:
    """Return the callbacks of a trainer, which gets this attribute from outside its class."""
    return trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]


def count_optimizer_steps(trainer: pl.Trainer, count: int) -> None:
    """Let `trainer.global_step` count `count` more optimizer steps: Lightning counts those of its own wrapper only."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for steps in (progress.total, progress.current):
        steps.ready += count
        steps.completed += count


def write_epoch_metrics(trainer: pl.Trainer) -> None:
    """Send what callbacks logged over this epoch to the logger now, where Lightning would after every callback's end.

    An epoch that has its checkpoint has its points, so they must come first. Lightning finds nothing left then.
    """
    trainer._logger_connector.update_train_epoch_metrics()


def step_of_metrics(trainer: pl.Trainer) -> int:
    """Return the step at which what is logged now belongs: optimizer steps inside an epoch, else finished epochs.

    Lightning's own step counts its batches, of which one may be many optimizer steps.
    """
    if trainer.state.fn != TrainerFn.FITTING:
        return trainer.current_epoch
    is_epoch_over = trainer.validating or trainer._logger_connector._first_loop_iter is None
    return trainer.current_epoch + 1 if is_epoch_over else trainer.global_step
