"""One cell of a sweep on a worker of Ray: what it is told, and what it does."""

import os
import traceback

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from digitlab.config.errors import UserError, one_line
from digitlab.platform import signals


def pack(context: HydraContext, config: DictConfig, function: TaskFunction) -> bytes:
    """Return what the cells of a sweep have in common, for `run`."""
    return cloudpickle.dumps((context, config, function, Singleton.get_state()))


def run(sweep: bytes, overrides: list[str], number: int) -> bytes:
    """Run the cell of these overrides, the `number`th of a packed sweep; return its JobReturn, pickled."""
    context, config, function, state = cloudpickle.loads(sweep)
    signals.end_silently()
    signals.end_with_parent(os.getppid())  # Ray's own process, without which it would take its time
    setup_globals()
    Singleton.set_state(state)
    composed = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(composed):
        composed.hydra.job.id, composed.hydra.job.num = f"{composed.hydra.job.name}_{number}", number
    HydraConfig.instance().set_config(composed)
    found = run_job(function, composed, "hydra.sweep.dir", "hydra.sweep.subdir", context)
    value = found._return_value  # the public property would raise an error
    if found.status is JobStatus.FAILED:
        value = _sendable(value)
    return cloudpickle.dumps(JobReturn(status=found.status, _return_value=value))


def _sendable(error: Exception) -> Exception:
    """Return the error with its traceback as a note, which a pickled one loses; another one if it cannot be pickled."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {one_line(error)}")
    return error


def unpack(answer: bytes | str) -> JobReturn:
    """Return the JobReturn in what a task has answered."""
    if isinstance(answer, bytes):
        return cloudpickle.loads(answer)
    return failed(answer)


def failed(reason: str) -> JobReturn:
    return JobReturn(status=JobStatus.FAILED, _return_value=UserError(reason))
