"""Which installed packages a configuration may build from, besides those that digitlab is made with.

Only who starts the program says so: a word of its arguments is taken out before Hydra, and so any file, is read.
"""

import functools
import re
import sys
from collections.abc import Callable, Collection, Iterable
from importlib.util import find_spec
from typing import Any

from digitlab.config.errors import UserError

KEY = "allow_targets"
# Where `_target_` may lead by what it names, which is checked; all of their functions must never be allowed.
PACKAGES = ("digitlab", "torch", "pytorch_lightning", "torchvision", "torchmetrics", "timm")
_allowed: set[str] = set()


def allow(names: Iterable[str]) -> None:
    """Let configurations build from the packages `names` in this process, and from no others."""
    _allowed.clear()
    _allowed.update(names)


def allowed() -> Collection[str]:
    return frozenset(_allowed)


def take_allowed(arguments: Iterable[str]) -> list[str]:
    """Allow what a word allow_targets=NAMES names; return the other arguments. UserError for what may not be named."""
    names, rest = [], []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == KEY:
            names += _names(argument, value)
        else:
            rest.append(argument)
    allow(names)
    return rest


def as_word() -> list[str]:
    """Return the word that allows what is allowed, if anything is."""
    return [f"{KEY}={','.join(sorted(_allowed))}"] if _allowed else []


def hand_on(function: Callable[..., Any]) -> Callable[..., Any]:
    """Have a function allow the same where another process calls it."""
    if not _allowed:
        return function
    names = sorted(_allowed)

    @functools.wraps(function)
    def with_names(*args: Any) -> Any:
        allow(names)
        return function(*args)

    return with_names


def _names(argument: str, value: str) -> list[str]:
    names = re.sub(r"^\[(.*)\]$", r"\1", value).split(",")
    if not all(re.fullmatch(r"[A-Za-z_]\w*", name) for name in names):
        raise UserError(f"{argument}: must name installed packages as import does, without a dot: {KEY}=mine,other")
    for name in names:
        if name in sys.stdlib_module_names or name in ("__main__", "hydra", "omegaconf"):
            raise UserError(f"{argument}: {name} would let a configuration run anything; name a package of yours")
        if name in PACKAGES:
            raise UserError(f"{argument}: what may be built from {name} is so without being allowed")
        if find_spec(name) is None:
            raise UserError(f"{argument}: no package {name} is installed")
    return names
