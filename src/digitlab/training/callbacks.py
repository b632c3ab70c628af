"""Which callbacks need every optimizer step, and which cannot work here."""

from collections.abc import Collection, Mapping

from pytorch_lightning import callbacks as lightning
from pytorch_lightning.callbacks import Callback

from digitlab.config.errors import UserError

STEP_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
FINGERPRINT = "after the run has its fingerprint"
REFUSED = {
    lightning.BackboneFinetuning: "the optimizer holds every parameter from the start, and no part is named backbone",
    lightning.BaseFinetuning: "the optimizer holds every parameter from the start; a Callback of yours can set "
    "requires_grad",
    lightning.BasePredictionWriter: "nothing is predicted; predictions.npz has those on the test images",
    lightning.BatchSizeFinder: f"it changes data.batch_size {FINGERPRINT}",
    lightning.GradientAccumulationScheduler: "trainer.accumulate_grad_batches is the same in every epoch",
    lightning.LearningRateFinder: f"it changes optim.lr {FINGERPRINT}; sweep=tune tries rates",
    lightning.ModelPruning: "a checkpoint does not hold its masks, so that a run that broke off would end otherwise",
    lightning.OnExceptionCheckpoint: "every epoch is saved, and a run that broke off goes on by itself",
    lightning.SpikeDetection: "the batches that it wants left out would not be; early_stopping.patience ends a run",
    lightning.StochasticWeightAveraging: "it changes the weights after the last checkpoint, so that what is tested "
    "would not be what it made; averaging.kind=swa averages in every checkpoint",
    lightning.ThroughputMonitor: "it needs functions, which no file can give; images_per_s is recorded",
    lightning.Timer: "how far a run gets would depend on the machine; time/epoch_s is recorded",
}
# By themselves these do nothing; classes of a user's own that are made of them do.
EMPTY = (lightning.Callback, lightning.Checkpoint, lightning.LambdaCallback, lightning.ProgressBar)


def sees_steps(callback: Callback) -> bool:
    """Say whether a callback has a hook around batches, backward passes or optimizer steps, and so needs each step.

    A callback that can also take a chunk of steps as one batch has a true attribute `takes_chunks`.
    """
    hooks = {hook: getattr(callback, hook) for hook in STEP_HOOKS}  # of the object: LambdaCallback sets its own there
    has_hook = any(getattr(each, "__func__", None) is not getattr(Callback, name) for name, each in hooks.items())
    return has_hook and not getattr(callback, "takes_chunks", False)


def refuse_unsupported(callback: Callback) -> None:
    """Raise ValueError for a callback that would run but have no effect, or a wrong one."""
    for kind, reason in REFUSED.items():
        if isinstance(callback, kind):
            raise ValueError(f"{kind.__name__} cannot work: {reason}")
    if type(callback) in EMPTY:
        raise ValueError(f"{type(callback).__name__} does nothing by itself; name a class made of it")


def check_one_average(callbacks: Mapping[str, Callback]) -> None:
    """Raise UserError for a callback that averages the weights too."""
    for key, callback in callbacks.items():
        if isinstance(callback, lightning.WeightAveraging):
            raise UserError(f"{key}: averages the weights, as averaging.kind does; allowed: one of the two")


def check_monitors(callbacks: Mapping[str, Callback], logged: Collection[str]) -> None:
    """Raise UserError for a callback whose monitor is not among what is `logged`.

    What classes of a user's own log is not known, so with one of those any monitor may be.
    """
    known = ("pytorch_lightning", "digitlab")
    if any(type(callback).__module__.partition(".")[0] not in known for callback in callbacks.values()):
        return
    for key, callback in callbacks.items():
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in logged:
            raise UserError(f"{key}.monitor={monitor}: is not logged; allowed: {', '.join(logged)}")
