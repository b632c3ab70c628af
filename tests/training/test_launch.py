"""What becomes of a run whose first process does not see by itself that another one has ended."""

import os
import signal
import time

import pytest
from test_distributed import SMALL, TWO, others

from digitlab.training import launch
from digitlab.training.classifier import Classifier


@pytest.mark.slow
@pytest.mark.lean
def test_where_one_of_the_others_is_killed_during_a_long_validation_the_run_is_not_left_running(harness, monkeypatch):
    validate = Classifier.on_validation_epoch_start

    def validate_for_long(trained: Classifier) -> None:
        validate(trained)
        if found := others(os.getpid()):
            found[0].kill()
            time.sleep(60)

    monkeypatch.setattr(launch, "NOTICE", 2)
    monkeypatch.setattr(Classifier, "on_validation_epoch_start", validate_for_long)
    began = time.monotonic()
    assert harness.main(*SMALL, TWO) == "error: process 2 of 2 ended: SIGKILL"
    assert time.monotonic() - began < 60
    (run,) = harness.runs()
    assert (run.info.status, run.data.tags["error"].partition(":")[0]) == ("FAILED", "ProcessEndedError")
    assert signal.getsignal(launch.TOLD) == signal.SIG_DFL
