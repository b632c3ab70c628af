"""End the program cleanly on SIGINT or SIGTERM, however many more signals follow."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_exiting_on: list[int] = []  # the signal that is ending the program


def exit_at_once_on_signals() -> None:
    """Let SIGINT and SIGTERM end the program at once with the shell's exit codes, 130 and 143.

    This is for while libraries load. Nothing needs cleaning up then, and an exception raised while C++ code
    initializes would abort the process.
    """
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _exit_at_once)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise SystemExit with the shell's exit codes, 130 and 143, so every `finally` runs."""
    handlers = {each: signal.signal(each, _exit) for each in (signal.SIGINT, signal.SIGTERM)}
    handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, _exit_again)
    previous_hook = sys.unraisablehook

    def exit_later(dropped) -> None:
        """Python drops a SystemExit raised in the callback of a weak reference: raise it again after the callback."""
        if _exiting_on and isinstance(dropped.exc_value, SystemExit):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            previous_hook(dropped)

    sys.unraisablehook = exit_later
    try:
        yield
    finally:
        sys.unraisablehook = previous_hook
        for each, handler in handlers.items():
            signal.signal(each, handler)
        if not {_exit, _exit_at_once} & set(handlers.values()):
            _exiting_on.clear()  # the process goes on after this context


def _exit(number: int, _) -> None:
    if _is_first(number):
        sys.exit(128 + number)


def _exit_at_once(number: int, _) -> None:
    if _is_first(number):
        os._exit(128 + number)


def _exit_again(*_) -> None:
    if _exiting_on:
        sys.exit(128 + _exiting_on[0])


def _is_first(number: int) -> bool:
    """Say whether this is the first signal, and tell the user; further ones must not interrupt the clean-up."""
    if _exiting_on:  # not by SIG_IGN, because Lightning restores the handler that it found
        return False
    _exiting_on.append(number)
    print("\ninterrupted; the same command continues after the last finished epoch", file=sys.stderr)
    return True
