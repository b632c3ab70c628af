"""End the program on a signal, in order, however many more signals follow."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_leaving_on: list[int] = []  # the signal that is ending the program


def exit_at_once_on_signals() -> None:
    """Let SIGINT and SIGTERM end the program with the shell's codes 130 and 143, from now until it is gone.

    They end it on the spot, for nothing is under way that had to be put in order: libraries load, and an exception that
    comes up while C++ code sets itself up aborts the process.
    """
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _leave_on_the_spot)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM end the program through every `finally`, with the shell's codes 130 and 143."""
    handlers = {each: signal.signal(each, _leave) for each in (signal.SIGINT, signal.SIGTERM)}
    handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, _leave_after_all)
    report_lost = sys.unraisablehook

    def not_lost(lost) -> None:
        """Where a weak reference's callback was interrupted, Python drops the exit: leave once that is over."""
        if _leaving_on and isinstance(lost.exc_value, SystemExit):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            report_lost(lost)

    sys.unraisablehook = not_lost
    try:
        yield
    finally:
        sys.unraisablehook = report_lost
        for each, handler in handlers.items():
            signal.signal(each, handler)
        if not {_leave, _leave_on_the_spot} & set(handlers.values()):
            _leaving_on.clear()  # who called lives on


def _leave(number: int, _) -> None:
    if _is_first(number):
        sys.exit(128 + number)


def _leave_on_the_spot(number: int, _) -> None:
    if _is_first(number):
        os._exit(128 + number)


def _leave_after_all(*_) -> None:
    if _leaving_on:
        sys.exit(128 + _leaving_on[0])


def _is_first(number: int) -> bool:
    """Say so to the user, and note it: a second signal must not interrupt what the first one set going."""
    if _leaving_on:  # SIG_IGN would not do: Lightning puts back the handler that it found
        return False
    _leaving_on.append(number)
    print("\ninterrupted; the same command continues after the last finished epoch", file=sys.stderr)
    return True
