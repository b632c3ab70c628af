"""Signals at moments that a whole run cannot be stopped at."""

import signal
import time
import weakref

import pytest

from digitlab.platform.signals import exit_on_signals


def test_a_signal_that_interrupts_a_weak_references_callback_is_not_lost():
    class Referent:
        pass

    def interrupt_a_callback() -> None:
        referent = Referent()
        _ = weakref.ref(referent, lambda _: signal.raise_signal(signal.SIGINT))
        del referent
        time.sleep(10)

    with pytest.raises(SystemExit) as end, exit_on_signals():
        interrupt_a_callback()
    assert end.value.code == 130
