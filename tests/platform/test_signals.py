"""Signals at moments that a whole run cannot be stopped at."""

import os
import signal
import subprocess
import sys
import time
import weakref

import pytest
from conftest import rest_at_night
from program import COMMON, Program

from digitlab.platform.signals import exit_on_signals

OTHERS = [signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2]


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, *OTHERS])
def test_a_signal_exits_with_the_shells_code_and_further_ones_do_not_disturb(number):
    went_on = []

    def interrupted() -> None:
        try:
            signal.raise_signal(number)
        finally:
            for other in (signal.SIGTERM, *OTHERS):
                signal.raise_signal(other)
            went_on.append(True)

    with pytest.raises(SystemExit) as end, exit_on_signals():
        interrupted()
    assert end.value.code == 128 + number


def test_a_signal_does_not_disturb_the_end_that_another_handler_began():
    """As where submitit's handler asks for the queue and exits, and SLURM then sends SIGTERM."""
    went_on = []

    def requeued() -> None:
        try:
            sys.exit(-1)
        finally:
            signal.raise_signal(signal.SIGTERM)
            went_on.append(True)

    with pytest.raises(SystemExit) as end, exit_on_signals():
        requeued()
    assert end.value.code == -1
    assert went_on
    assert went_on


@pytest.mark.parametrize("number", [each for each in OTHERS if each != signal.SIGALRM])
def test_a_signal_that_is_ignored_or_taken_stays_so(number):
    heard = []
    for handler in (signal.SIG_IGN, lambda *_: heard.append(True)):
        before = signal.signal(number, handler)
        try:
            with exit_on_signals():
                signal.raise_signal(number)
            assert signal.getsignal(number) is handler
        finally:
            signal.signal(number, before)
    assert heard == [True]


@pytest.mark.parametrize("executor", ["slurm", "local", ""])
def test_a_job_of_slurm_that_is_told_to_end_stays_until_it_is_killed(executor):
    script = "import sys; from digitlab.platform.signals import stay_until_killed as stay\nwith stay(): sys.exit(143)"
    environment = os.environ | {"PYTHONPATH": "src", "SUBMITIT_EXECUTOR": executor}
    job = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, text=True)
    assert job.stderr
    if executor == "slurm":
        assert "the run is closed" in job.stderr.readline()
        job.send_signal(signal.SIGKILL)
    assert job.wait(30) == (-signal.SIGKILL if executor == "slurm" else 143)
    job.stderr.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", rest_at_night(OTHERS))
def test_a_signal_ends_a_run_as_killed_with_the_shells_exit_code(harness, number):
    program = Program(harness, "trainer.max_epochs=500", "model=mlp")
    assert program.wait_for("epoch   2/500")
    program.process.send_signal(number)
    assert program.wait(timeout=60) == 128 + number
    assert "interrupted; the same command continues" in program.output()
    assert "Traceback" not in program.output()
    (run,) = harness.runs()
    assert run.info.status == "KILLED"


@pytest.mark.slow
@pytest.mark.parametrize("is_heard", [True, False])
def test_output_that_nobody_reads_any_more_ends_a_run_as_killed(harness, is_heard):
    """As `python src/train.py ... | head -1` and `... 2>&1 | head -1` do."""
    harness.folder.mkdir()
    command = [sys.executable, "src/train.py", *COMMON, "trainer.max_epochs=500", "model=mlp"]
    program = subprocess.Popen(
        command,
        env=os.environ | {"MLFLOW_TRACKING_URI": harness.uri},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if is_heard else subprocess.STDOUT,
        text=True,
    )
    assert program.stdout.readline().startswith("CPU: ")
    program.stdout.close()
    said = program.stderr.read() if is_heard else ""
    if is_heard:
        program.stderr.close()
    assert program.wait(120) == 141
    assert "Traceback" not in said
    assert said.count("its output is no longer read") == is_heard
    assert {run.info.status for run in harness.runs()} <= {"KILLED"}
