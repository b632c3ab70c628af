"""Say a user's mistake in one line."""

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec

from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigTypeError,
    InterpolationKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)
from yaml import YAMLError

from digitlab.config.ungiven import names_in
from digitlab.platform.secrets import redact
from digitlab.platform.signals import exit_unread
from digitlab.platform.text import did_you_mean, printable, shorten

LISTED = 200  # characters of names that a line lists; of more it says how many there are

WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"


class UserError(Exception):
    """A mistake of the user's, said in one line, without secrets."""

    def __init__(self, message: str):
        super().__init__(redact(message))


@contextmanager
def user_errors(key: str) -> Iterator[None]:
    """Turn what constructors raise for bad values into a UserError that names `key`."""
    try:
        yield
    except Exception as error:
        cause = (error.__cause__ or error) if isinstance(error, InstantiationException) else error
        raise UserError(f"{key}: {one_line(cause)}") from error


def check_extra(key: str, packages: Sequence[str], extra: str) -> None:
    """Raise UserError where `key` needs packages, named as they are imported, that an extra brings and are not here."""
    if missing := [each for each in packages if find_spec(each) is None]:
        raise UserError(
            f"{key}: needs {', '.join(missing)}, of the extra {extra}: pip install '.[{extra}]' in digitlab's folder"
        )


def job_errors(cfg: DictConfig) -> AbstractContextManager:
    """In a single run a mistake ends the program in one line; in a sweep it is the cell's, for the sweep to report."""
    return nullcontext() if cfg.sweep.parent else one_line_errors()


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line for a mistake of the user's or a failing disk; HYDRA_FULL_ERROR=1 shows it all."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own many lines and exits
    try:
        yield
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # as in: digitlab train --help | head
        exit_unread()
    except (UserError, OSError, HydraException, OmegaConfBaseException, YAMLError) as error:
        if WANTS_TRACEBACK:
            raise
        line = printable(redact(one_line(error)))
        sys.exit(f"error: {line if _names_place(error) else shorten(line)}")
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]


def _names_place(error: BaseException) -> bool:
    """Say whether a disk or a server failed: then the line says where, and whole."""
    causes = [each for each in (error, error.__cause__) if isinstance(each, OSError)]
    if isinstance(error, MissingConfigException):  # which is an OSError in Hydra
        return False
    return any(each.errno != errno.ENAMETOOLONG for each in causes)


def one_line(error: BaseException) -> str:
    """Say what an error says, in one line."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        extra = "; joblib is in the extra parallel" if group == "hydra/launcher" else ""
        options = [each for each in error.options if each != "base"]
        listed = ", ".join(options)
        allowed = listed if len(listed) <= LISTED else f"{len(options)} names, those of the files in conf/{group}"
        return f"{group}={name}: not found; allowed: {allowed}{extra}{did_you_mean('', name, options)}"
    if isinstance(error, InterpolationKeyError):
        missing = str(error).partition("'")[2].partition("'")[0]
        return f"{missing}: is missing, and {error.full_key} takes its value; give it as {missing}=VALUE"
    if isinstance(error, InterpolationResolutionError):
        return f"{error.full_key}: {str(error).splitlines()[0].partition(': ')[2]}".replace('"', "")
    cause = error.__cause__
    if isinstance(cause, ConfigTypeError) and str(error).startswith("Error merging override"):
        wanted = "a list" if str(cause).splitlines()[0].endswith("ListConfig") else "a mapping"
        return f"{str(error).removeprefix('Error merging override ')}: must be {wanted}"
    if (
        isinstance(cause, OmegaConfBaseException)
        and isinstance(cause.parent_node, DictConfig)
        and "struct" in str(cause)
    ):
        above = str(cause.full_key).rpartition(".")[0]
        allowed = [str(key) for key in cause.parent_node if key != "hydra" and not str(key).startswith("_")]
        if not allowed:
            return f"{cause.full_key}: unknown key: there is no {above}; give {above}=NAME"
        allowed += [name for name in names_in(above) if name not in allowed]
        more = " (with + before it, also what the target takes)" if "_target_" in cause.parent_node else ""
        return f"{cause.full_key}: unknown key; allowed: {', '.join(allowed)}{more}"
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line) or type(error).__name__
