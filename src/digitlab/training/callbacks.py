"""Which callbacks need every optimizer step, and which are not supported."""

from pytorch_lightning import callbacks as lightning
from pytorch_lightning.callbacks import Callback

STEP_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
UNSUPPORTED = {
    lightning.GradientAccumulationScheduler: "every batch is an optimizer step here; data.batch_size makes it larger",
    lightning.StochasticWeightAveraging: "it changes the weights after the last checkpoint, so that what is tested "
    "would not be what it made; pytorch_lightning.callbacks.EMAWeightAveraging averages in every checkpoint",
    lightning.BatchSizeFinder: "it changes data.batch_size after the run has its fingerprint",
    lightning.LearningRateFinder: "it changes optim.lr after the run has its fingerprint; sweep=tune tries rates",
}


def sees_steps(callback: Callback) -> bool:
    """Say whether a callback has a hook around batches, backward passes or optimizer steps, and so needs each step.

    A callback that can also take a chunk of steps as one batch has a true attribute `takes_chunks`.
    """
    has_hook = any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in STEP_HOOKS)
    return has_hook and not getattr(callback, "takes_chunks", False)


def refuse_unsupported(callback: Callback) -> None:
    """Raise ValueError for a callback that would run but have no effect, or a wrong one."""
    for kind, reason in UNSUPPORTED.items():
        if isinstance(callback, kind):
            raise ValueError(f"{kind.__name__} cannot work: {reason}")
