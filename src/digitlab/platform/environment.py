"""What each library may take from the user's environment, in one place; the rest is hidden from it.

Who starts a run asks digitlab for it. A variable that was set for something else must not end the run, change its
numbers or make it noisy.
"""

import codecs
import io
import logging
import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NamedTuple

# What the variables of a library begin with, and those of them that it may read.
READABLE: Mapping[str, tuple[str, ...]] = {
    # where a server is and how to speak to it; a run, an experiment, a level of logging is ours to choose
    "MLFLOW_": ("MLFLOW_TRACKING_", "MLFLOW_HTTP_", "MLFLOW_ALLOW_HTTP_", "MLFLOW_S3_", "MLFLOW_BOTO_", "MLFLOW_GCS_",
                "MLFLOW_KERBEROS_", "MLFLOW_MYSQL_", "MLFLOW_MULTIPART_", "MLFLOW_WORKSPACE"),
    "PL_": (),  # of Lightning; PL_TRAINER_LIMIT_TRAIN_BATCHES would change results unseen
    "HYDRA_": ("HYDRA_FULL_ERROR",),
    "MATPLOTLIBRC": (),
    "RAY_": ("RAY_AUTH_", "RAY_TLS_", "RAY_USE_TLS"),  # RAY_ADDRESS would have a sweep run elsewhere than it says
    "GIT_": ("GIT_CONFIG", "GIT_EXEC_PATH"),  # a hook's GIT_DIR names another checkout than the code's
    "TORCH_LOGS": (),
    "TORCH_TRACE": (),
    "TORCH_COMPILE_": (),
    "TORCHDYNAMO_": (),  # the logged model is exported by it
    "COLUMNS": (),  # the terminal itself is asked
    "LINES": (),
    "PYTHONWARNINGS": (),
    "SLURM_NTASKS": (),  # where there are any, Lightning takes hpc_ckpt files that lie about for checkpoints
}  # fmt: skip
FIXED = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",  # MLflow needs no git
}
# What starts several processes at once, by what tells each of them how many there are, which it is, and which of those
# on its machine.
STARTERS = {
    "torchrun": ("WORLD_SIZE", "RANK", "LOCAL_RANK"),
    "srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    "mpirun": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", ""),
    "mpiexec": ("PMI_SIZE", "PMI_RANK", ""),
    "jsrun": ("JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK", ""),
}
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # read by Lightning
IN_ASCII = {"×": "x", "±": "+-", "–": "-", "−": "-", "…": "...", "≤": "<=", "≥": ">=", "→": "->"}


@contextmanager
def shielded() -> Iterator[None]:
    """Let libraries see, within this context, only what they may; and let every text be printed, in any encoding."""
    hidden = {name: value for name, value in os.environ.items() if not _is_readable(name, value)}
    before = {name: os.environ.get(name) for name in FIXED}
    for name in hidden:
        del os.environ[name]
    os.environ.update(FIXED)
    if "PYTHONWARNINGS" in hidden:
        _forget_python_warnings()
    if sys.flags.optimize > 1:  # MLflow reads docstrings where it is imported, and there are none
        warnings.filterwarnings("ignore", "Failed to register a dataset source")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and "utf" not in stream.encoding.lower():
            stream.reconfigure(errors="digitlab.ascii")
    matplotlib = logging.getLogger("matplotlib")  # it reads a matplotlibrc that lies in the folder, and complains of it
    level = matplotlib.level
    matplotlib.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        matplotlib.setLevel(level)
        os.environ.update(hidden)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


class Started(NamedTuple):
    """What started this process with others: the variable that says so, how many they are, and which one this is."""

    by: str
    variable: str
    size: int
    rank: int
    local: int  # which of those on this machine

    def __str__(self) -> str:
        return f"{self.variable}={self.size}: {self.by} started several processes"


def started() -> Started | None:
    """Say what started this process as one of several; None where it is alone."""
    for by, names in STARTERS.items():
        count, rank, local = (int(text) if (text := os.environ.get(name, "")).isdecimal() else None for name in names)
        if count and count > 1 and rank is not None:
            return Started(by, names[0], count, rank, local or 0)
    return None


def _is_readable(name: str, value: str) -> bool:
    if name in FIXED:
        return True
    if name in RANKS:
        return started() is not None  # this process is to be refused or to take part, by what they say
    if name == "OMP_NUM_THREADS":
        return bool(re.fullmatch(r"\s*[1-9]\d*(\s*,\s*[1-9]\d*)*\s*", value))  # libgomp complains of any other
    if name == "MPLBACKEND":  # in a notebook, what draws there
        package = value.removeprefix("module://").partition(".")[0]
        return value.startswith("module://") and package.isidentifier() and find_spec(package) is not None
    return all(name.startswith(readable) for prefix, readable in READABLE.items() if name.startswith(prefix))


def _forget_python_warnings() -> None:
    """Filter warnings as Python does by itself."""
    sys.warnoptions.clear()  # else child processes get them
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Write in ASCII what an encoding lacks: a codec's error handler."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(IN_ASCII.get(sign) or _letters(sign) or "?" for sign in text), error.end


def _letters(sign: str) -> str:
    """Return a letter without its accents."""
    return unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()


codecs.register_error("digitlab.ascii", _in_ascii)
