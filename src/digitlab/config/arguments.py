"""Check the arguments of the command line before Hydra reads them."""

import json
import re
import sys
from collections.abc import Sequence

from digitlab.config.errors import UserError

# What the command line may change of Hydra's own node. Its callbacks and loggers are built from `_target_`, `class` and
# `()` before any code of ours runs, so they are the business of the files in conf/ alone, which are reviewed like code.
HYDRA_KEYS = ("hydra/launcher", "hydra.launcher.", "hydra.sweeper.params", "hydra.mode", "hydra.verbose")


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise UserError for an argument of the command line that reaches into Hydra further than it may."""
    for argument in arguments:
        key = argument.lstrip("+~").partition("=")[0]
        is_override = ("=" in argument or argument[:1] == "~") and not key.startswith("-")
        is_hydras = is_override and "hydra" in re.split(r"\W", key)
        if is_hydras and (not key.startswith(HYDRA_KEYS) or "_target_" in argument):
            raise UserError(f"{key}: not to be changed from here; allowed of Hydra's: {', '.join(HYDRA_KEYS)}")


def show_help(job: str, arguments: Sequence[str]) -> None:
    """Print every key that the job "train" or "report" takes and end the program, where `arguments` ask for help."""
    if {"--help", "-h"} & set(arguments):
        from digitlab.config.reference import help_page

        print(help_page(job))
        sys.exit()


def quoted(argument: str, key: str) -> str:
    """Quote the value of `key` in `key=value` unless it is: it is text of another grammar, which Hydra's trips over."""
    name, separator, value = argument.partition("=")
    if name != key or not separator or value[:1] in ("'", '"') or value == "null":
        return argument
    return f"{name}={json.dumps(value, ensure_ascii=False)}"
