"""Check the arguments of the command line before Hydra reads them."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString

from digitlab import CONF
from digitlab.config.errors import UserError
from digitlab.config.leaves import is_within
from digitlab.config.ungiven import UNGIVEN
from digitlab.platform.secrets import has_secret, hide_password
from digitlab.platform.text import shorten

# What the command line may change of Hydra's own node. Its callbacks and loggers are built from `_target_`, `class` and
# `()` before any code of ours runs, so they are the business of the files in conf/ alone, which are reviewed like code.
HYDRA_KEYS = ("hydra/launcher", "hydra.launcher.", "hydra.sweeper.params", "hydra.mode", "hydra.verbose")
REPORTS_HYDRA_KEYS = ("hydra.verbose",)
# Keys of free text, which is taken as it stands.
TEXTS = (
    "data.root",
    "data.file",
    "tracking.uri",
    "tracking.experiment",
    "sweep.name",
    "report.filter",
    "report.dir",
    "report.sweep",
    "report.arm",
    "report.seed",
    "report.metric",
    "vs",
)
EMPTY = {  # keys whose empty text would be taken for null, and what they must be
    "tracking.uri": "an address, or null for mlruns/mlflow.db",
    "data.root": "a folder, or null for the repository's data/",
    "data.file": "the file of the images",
}
BY_TARGET = ("loss._target_", "scheduler._target_")  # where there is a name or none by default
LONGEST = 10_000  # characters of an argument
OPTIONAL = ("sweep", "claim", "counterpart")  # groups of which a run is without a choice by default


def check_arguments(arguments: Sequence[str], hydra_keys: tuple[str, ...] = HYDRA_KEYS) -> None:
    """Raise UserError for an argument of the command line that is none, or reaches into Hydra further than it may."""
    for argument in arguments:
        key, equals, value = argument.lstrip("+~").partition("=")
        if equals and not key:
            raise UserError(f"{argument}: has no key; give KEY=VALUE")
        if is_within(key, ["names"]):
            raise UserError(f"{key}: is written by digitlab, and not to be given")
        if key == "claim" and re.search(r"(^|,)base/", value):
            raise UserError(f"{argument}: is what files of claims build on, and claims nothing itself")
        if equals and not value and key in EMPTY:
            raise UserError(f"{key}=: must be {EMPTY[key]}")
        if len(argument) > LONGEST:  # Hydra's parser takes a minute for some thousands of brackets
            raise UserError(f"{shorten(argument)}: has {len(argument):,} characters; allowed: {LONGEST:,}")
        if re.fullmatch(r"null|~|[-+\d.].*", value, re.IGNORECASE) and not argument.startswith("~"):
            check_choice(key, value)
        is_override = ("=" in argument or argument[:1] == "~") and not key.startswith("-")
        is_hydras = is_override and "hydra" in re.split(r"\W", key)
        if is_hydras and (not key.startswith(hydra_keys) or "_target_" in argument):
            raise UserError(f"{key}: not to be changed from here; allowed of Hydra's: {', '.join(hydra_keys)}")


def check_slips(arguments: Sequence[str], is_one: bool = False) -> None:
    """Raise UserError for a KEY=VALUE that a space has divided, and for several values where one is asked for.

    Args:
        arguments: The words after the program's name.
        is_one: Whether the program does one job at a time; else the line says how runs of several values are begun.
    """
    word = r"[A-Za-z_][\w./@]*"
    for left, right, *more in (arguments[place : place + 3] for place in range(len(arguments) - 1)):
        name = left.lstrip("+~")
        is_next = re.match(rf"-\D|[+~]*{word}=", right)  # an argument of its own, after an empty value
        if re.fullmatch(rf"{word}=", name) and not is_next:
            raise UserError(f"{left} {right}: has a space beside the =; write {left}{right}")
        if re.fullmatch(word, name) and right.startswith("="):
            value = right if right != "=" else f"={more[0] if more else 'VALUE'}"
            raise UserError(f"{left} {right}: has a space beside the =; write {left}{value}")
    if _is_many(arguments):
        return
    for argument in arguments:
        key, _, value = argument.partition("=")
        if "," not in value or argument[:1] in "-~" or key.lstrip("+") in TEXTS or re.search(r"[\[({'\"\\]", value):
            continue
        each = [] if is_one else [f"a run of each: -m {argument}"]
        if re.fullmatch(r"[-+]?\d+,\d+", value):
            ways = [f"a comma; a decimal point: {key}={value.replace(',', '.')}", *each]
        else:
            ways = ["several values", *each, f"a list: '{key}=[{value}]'"]
        raise UserError(f"{argument}: has {'; '.join(ways)}")


def show_help(job: str, arguments: Sequence[str]) -> None:
    """Print every key that the job "train" or "report" takes and end the program, where `arguments` ask for help."""
    if {"--help", "-h"} & set(arguments):
        from digitlab.config.hydra_internals import users_folder
        from digitlab.config.reference import help_page

        program = sys.argv[0]
        command = f"python src/{Path(program).name}" if program.endswith(".py") else program
        print(help_page(job, command, users_folder(arguments)))
        sys.stdout.flush()
        sys.exit()


def without_password(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with an address of the store that holds a password in the environment, and its name here.

    Launchers write what a sweep was told into files of their own, for each of its cells.
    """
    found = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        address = value.strip("'\"")
        if key.lstrip("+") == "tracking.uri" and has_secret(address):
            hide_password(address)
            os.environ["MLFLOW_TRACKING_URI"] = address
            argument = "tracking.uri='${oc.env:MLFLOW_TRACKING_URI}'"
        found.append(argument)
    return found


def _is_many(arguments: Sequence[str]) -> bool:
    """Say whether several runs are asked for, whose commas separate values."""
    many = ("sweep=", "hydra.mode=MULTIRUN", "hydra.sweeper.params")
    return any(each in ("-m", "--multirun") or each.lstrip("+").startswith(many) for each in arguments)


def check_choice(group: str, value: str) -> None:
    """Raise UserError where `value` is no name and `group` is a group, to which Hydra wants one; null may mean none."""
    choices = sorted({file.stem for file in (CONF / group).glob("*.yaml")} - {"base"}) if group else []
    if choices and not (value == "null" and ("none" in choices or group in OPTIONAL)):
        raise UserError(f"{group}={value}: not found; allowed: {', '.join(choices)}")


def understood(arguments: Sequence[str]) -> list[str]:
    """Return the arguments in Hydra's grammar: text as it stands, null for a group that has a choice none, new keys.

    The values of TEXTS are paths, addresses and filters, whose signs Hydra's grammar would trip over. Where several
    runs are asked for, their commas separate values, as those of every key do.
    """
    is_many, found = _is_many(arguments), []
    for argument in arguments:
        key, _, value = argument.partition("=")
        is_text = key.lstrip("+") in TEXTS and value[:1] not in ("'", '"')
        is_call = is_many and re.match(r"(choice|glob|interval|range|shuffle|sort)\(", value)
        text = ",".join(map(_as_text, value.split(",") if is_many else [value]))
        if is_text and text != value and not is_call:
            argument = f"{key}={text}"
        elif value == "null" and key in OPTIONAL:
            continue
        elif value == "null" and (CONF / key / "none.yaml").is_file():
            argument = f"{key}=none"
        elif is_within(key, UNGIVEN) or key in BY_TARGET or key.startswith("claim."):  # whose file says no more
            argument = f"++{argument}"
        found.append(argument)
    return found


def _as_text(value: str) -> str:
    """Return a value in quotes where Hydra's grammar would see more in it than text."""
    is_plain = re.fullmatch(r"[\w./:@%+~-]*", value) and not re.fullmatch(r"[-+.\d]*\d[\d_.]*(e\d+)?", value, re.I)
    return value if is_plain else QuotedString(value, Quote.single).with_quotes()


def parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """Return by key the values that arguments give, as the command line reads them."""
    return {each.key_or_group: each.value() for each in OverridesParser.create().parse_overrides(understood(arguments))}
