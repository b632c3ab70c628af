"""End the program at once and in order when a signal says so, however many more signals follow."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_leaving_on: list[int] = []  # the signal that is ending the program


def exit_on_signals() -> Callable[[], None]:
    """Let SIGINT and SIGTERM end the program at once, through every `finally`, with the shell's codes 130 and 143.

    A program does so for good: its last moments are not to be disturbed either. Returns what puts back the handlers
    that were there before.
    """
    handlers = {each: signal.signal(each, _leave) for each in (signal.SIGINT, signal.SIGTERM)}
    handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, _leave_after_all)
    report_lost = sys.unraisablehook

    def not_lost(lost) -> None:
        """Where a weak reference's callback was interrupted, Python drops the exit: leave once that is over."""
        if _leaving_on and isinstance(lost.exc_value, SystemExit):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            report_lost(lost)

    def put_back() -> None:
        sys.unraisablehook = report_lost
        for each, handler in handlers.items():
            signal.signal(each, handler)
        if _leave not in handlers.values():
            _leaving_on.clear()

    sys.unraisablehook = not_lost
    return put_back


@contextmanager
def exiting_on_signals() -> Iterator[None]:
    """Do so within this context, for who calls from a program of their own."""
    put_back = exit_on_signals()
    try:
        yield
    finally:
        put_back()


def _leave(number: int, _) -> None:
    if not _leaving_on:  # the second one must not interrupt what the first one set going
        _leaving_on.append(number)  # SIG_IGN would not do: Lightning puts back the handler that it found
        print("\ninterrupted; the same command continues after the last finished epoch", file=sys.stderr)
        sys.exit(128 + number)


def _leave_after_all(*_) -> None:
    if _leaving_on:
        sys.exit(128 + _leaving_on[0])
