"""What signals do to a program, in moments that no run can be stopped at."""

import signal
import time
import weakref

import pytest

from digitlab.platform.signals import exit_on_signals


def test_a_signal_that_interrupts_a_weak_references_callback_is_not_lost():
    class Thing:
        pass

    def interrupt_a_callback() -> None:
        thing = Thing()
        _ = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
        del thing
        time.sleep(10)

    with pytest.raises(SystemExit) as end, exit_on_signals():
        interrupt_a_callback()
    assert end.value.code == 130
