"""Train one network with one optimizer on one data set, from the configuration to the tracked result."""

from omegaconf import DictConfig
from pytorch_lightning.callbacks import ModelCheckpoint

from digitlab.config.errors import user_errors
from digitlab.platform import console, machine
from digitlab.platform.signals import exit_on_signals
from digitlab.tracking import locks
from digitlab.tracking.run import Run
from digitlab.tracking.store import Store
from digitlab.tracking.turn import find_or_begin
from digitlab.training import record
from digitlab.training.checkpoint import EpochCheckpoint, load_tested, resume_from
from digitlab.training.lightning_internals import callbacks_of, step_of_metrics
from digitlab.training.progress import Progress
from digitlab.training.setup import Job, name_run, set_up
from digitlab.training.steps import RATE
from digitlab.training.trial import why_not_exported
from digitlab.training.user_checkpoints import move_checkpoints


@exit_on_signals()
def train(cfg: DictConfig) -> float:
    """Run what `cfg` describes, or continue it where it broke off, or find it done; return its best val/acc.

    Raises UserError for a mistake in `cfg`, before anything is recorded.
    """
    console.prepare()
    machine.prepare_training()
    job = set_up(cfg)
    with job.team:
        return make(cfg, job)


def make(cfg: DictConfig, job: Job) -> float:
    """Make the run of `job`, which was set up by `cfg`, or find it done; return its best val/acc."""
    if not job.is_cell:
        console.say("\n".join(machine.accelerators()))
    with user_errors("tracking"):
        store = Store(job.cfg.tracking.uri, job.cfg.tracking.experiment)
        store.open()
    with store.translate_errors(), locks.owner(store, job.fingerprint):
        tags = {"fingerprint": job.fingerprint, "command": record.command_line()}
        run, done = find_or_begin(store, name_run(job.cfg, job.names), tags, job.cfg.rerun, may_wait=not job.is_cell)
        if done:
            record.show_done(done, store.directions(done.info.run_id))
            return record.best_accuracy(run)
        with run:
            job.team.start(cfg)
            run.without_model = why_not_exported(job.classifier.network, job.data)
            record.describe(run, job)
            epochs = fit(run, job)
            job.team.end()
            tested = evaluate(run, job) if job.is_tested else None
            best = record.best_accuracy(run)
            weights = "" if tested is None else f"epoch {tested} of {epochs} ({job.cfg.evaluate_on})"
            record.write_note(run, job, weights, best)
            run.keep_only(job.tested_checkpoint)
            store.check()
        if tested is None:
            result = f"best val/acc {best:.4f}, not tested"
            console.say(f"{run.name}: {result}; see it: {store.directions(run.id)}")
        else:
            record.summarize(run, job, f"epoch {tested} of {epochs}", store.directions(run.id))
        machine.trim_malloc()
        return best


def fit(run: Run, job: Job) -> int:
    """Train from the start or from the last checkpoint; return the number of epochs. The step is Classifier's."""
    trainer, classifier, data = job.trainer, job.classifier, job.data
    classifier.team = job.team if job.team.place.size > 1 else None
    trainer.logger = run.logger
    run.logger.step_of_metrics = lambda: step_of_metrics(trainer)
    for callback in callbacks_of(trainer):
        if isinstance(callback, EpochCheckpoint):
            callback.folder, callback.run = run.checkpoints, run.id
            callback.flush, callback.share = run.flush, run.share_checkpoints
        if isinstance(callback, ModelCheckpoint):
            move_checkpoints(callback, run.checkpoints.parent)
        if isinstance(callback, Progress) and job.is_cell:
            callback.label = f"{run.name}: "
    stored = run.logger.stored
    newest = resume_from(run.checkpoints, run.id, job.tested_weights, recorded=stored.get(RATE, 0))
    if newest:
        console.say(f"after epoch {newest.epoch} of {trainer.max_epochs}")
    else:
        if stored:
            console.say("from the start: there is no checkpoint to continue from")
        trainer.validate(classifier, data, verbose=False)  # the untrained network: step 0 of the curves
    if not newest or not (newest.finished or newest.epoch == stored.get("test/acc")):
        try:
            trainer.fit(classifier, data, ckpt_path=newest and newest.file, weights_only=True)
        finally:
            classifier.release()
    return run.history("val/loss")[0][-1]


def evaluate(run: Run, job: Job) -> int:
    """Test the best or the last weights, once, and record what they came to; return their epoch."""
    epoch, weights = load_tested(run.checkpoints / job.tested_checkpoint, run.id)
    # Not by ckpt_path: a callback that averages weights would put those back that training goes on with.
    job.classifier.load_state_dict(weights)
    run.logger.step_of_metrics = lambda: epoch
    job.trainer.test(job.classifier, job.data, verbose=False)
    run.logger.log_metrics(job.classifier.results, epoch)
    run.flush()
    record.conclude(run, job, epoch)
    return epoch
