"""End the program cleanly when it is asked to, however many more signals follow, and with the one that started it."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NoReturn

ALWAYS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
# Where nobody else uses them: nohup ignores the first, submitit takes SIGUSR2 for the end of a job's time.
UNLESS_TAKEN = (
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
    signal.SIGVTALRM,
)
_advice = ["; the same command continues after the last finished epoch"]
_silent: list[bool] = []  # set in a process whose end another one speaks of
_exiting_on: list[int] = []  # the signal that is ending the program
_contexts: list[Callable[[], AbstractContextManager]] = []  # to be entered while it ends
_entered = ExitStack()
_dropped: list[bool] = []  # set while a SystemExit has to be raised again


def exit_at_once_on_signals() -> None:
    """Let signals end the program at once with the shell's exit codes, such as 130 and 143.

    This is for while libraries load. Nothing needs cleaning up then, and an exception raised while C++ code
    initializes would abort the process.
    """
    _handle(_exit_at_once)


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let signals raise SystemExit with the shell's exit codes, such as 130 and 143, so every `finally` runs."""
    handlers = _handle(_exit)
    previous_hook = sys.unraisablehook

    def exit_later(dropped) -> None:
        """Python drops a SystemExit raised in the callback of a weak reference: raise it again after the callback."""
        if _exiting_on and isinstance(dropped.exc_value, SystemExit):
            _dropped.append(True)
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            previous_hook(dropped)

    sys.unraisablehook = exit_later
    try:
        yield
    except Exception as error:  # of the clean-up, as where a server is away
        if _exiting_on:
            raise SystemExit(128 + _exiting_on[0]) from error
        raise
    finally:
        sys.unraisablehook = previous_hook
        for each, handler in handlers.items():
            signal.signal(each, handler)
        if not {_exit, _exit_at_once} & set(handlers.values()):
            _exiting_on.clear()  # the process goes on after this context
            _entered.close()


def while_ending(context: Callable[[], AbstractContextManager]) -> None:
    """Have a context entered when a signal ends the program, for the clean-up."""
    if context not in _contexts:
        _contexts.append(context)


@contextmanager
def stay_until_killed() -> Iterator[None]:
    """Let a cell that SLURM ends wait for its end, with its run closed; only a job that is still there is requeued."""
    try:
        yield
    except SystemExit as end:
        if end.code == 128 + signal.SIGTERM and os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
            say_last("the run is closed; the job waits to be ended and queued again")
            while True:
                signal.pause()  # submitit's handler of SIGUSR2 asks for the queue itself, and ends the process
        raise


def _handle(handler: Callable) -> dict[int, Any]:
    """Set the handler of each signal; return the ones before."""
    free = [each for each in UNLESS_TAKEN if signal.getsignal(each) in (signal.SIG_DFL, _exit, _exit_at_once)]
    return {each: signal.signal(each, handler) for each in (*ALWAYS, *free)}


def _exit(number: int, _) -> None:
    if _is_first(number):
        sys.exit(128 + number)
    if _dropped and number == signal.SIGALRM:
        _dropped.clear()
        sys.exit(128 + _exiting_on[0])


def _exit_at_once(number: int, _) -> None:
    if _is_first(number):
        os._exit(128 + number)


def _is_first(number: int) -> bool:
    """Say whether this is the first signal, and tell the user; further ones must not interrupt the clean-up."""
    if _exiting_on:  # not by SIG_IGN, because Lightning restores the handler that it found
        return False
    if isinstance(sys.exception(), SystemExit):  # as where submitit has asked for the queue, and SLURM ends the job
        return False
    _exiting_on.append(number)
    for context in _contexts:
        _entered.enter_context(context())
    if not _silent:
        say_last(f"\ninterrupted{_advice[0]}")
    return True


def nothing_continues() -> None:
    """Say no more of a command that is interrupted than that: it trains nothing."""
    _advice[0] = ""


def jobs_go_on() -> None:
    """Say of a command that is interrupted that what it waits for goes on elsewhere."""
    _advice[0] = "; its jobs go on, and the same command waits for them"


def end_silently() -> None:
    """Say nothing where a signal ends this process: the one that it works for does."""
    _silent[:] = [True]


def say_last(text: str) -> None:
    """Tell the user, if anybody reads it; else let what the program prints while it ends go nowhere."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:  # the terminal has hung up, or a pipe is closed
        _discard(1, 2)


def _discard(*descriptors: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for each in descriptors:
        os.dup2(nowhere, each)
    os.close(nowhere)


def exit_unread() -> NoReturn:
    """End the program, of whose output nobody reads the rest, as SIGPIPE does elsewhere; Python ignores that."""
    _discard(1)
    sys.exit(128 + signal.SIGPIPE)


def exit_on_closed_output() -> NoReturn:
    """End a run whose output nobody reads any more, and say so."""
    say_last(f"interrupted: its output is no longer read{_advice[0]}")
    exit_unread()


def end_with_parent(parent: int) -> None:
    """Have this process killed when process `parent`, which started it, ends; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG of <sys/prctl.h>
        if os.getppid() != parent:  # it has ended meanwhile
            os._exit(1)
