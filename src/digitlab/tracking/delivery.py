"""Deliver what waits in a journal to the server: a thread while the run goes on, the next command after that."""

import math
from collections.abc import Callable, Iterator, Mapping
from threading import Thread
from time import monotonic, sleep

from mlflow import MlflowClient, entities
from mlflow.exceptions import MlflowException

from digitlab.platform import console
from digitlab.platform.process import host_of, is_running, this_process
from digitlab.platform.secrets import redact
from digitlab.platform.text import shorten
from digitlab.tracking import lease
from digitlab.tracking.deferred import deliver
from digitlab.tracking.failures import is_refusal, root_of
from digitlab.tracking.journal import Journal, abandoned
from digitlab.tracking.lease import Lease, TakenOverError
from digitlab.tracking.store import Store, timeouts
from digitlab.tracking.tags import remove_tag

OUTAGE = 10  # seconds in which something waits and nothing arrives, until it is said
AGAIN = 1  # seconds until what failed is tried again
SLOWEST, RATE = 45, 2**20  # seconds that the calls of one entry may take, and bytes a second besides
PATIENCE = 120  # seconds without an answer that the end of a run waits for
PATIENCE_OF_SIGNALS = 3  # the same, where a signal ends the run
PATIENCE_OF_COMMANDS = 15  # the same, where a command completes what another left
ONE_CALL = {"retries": 0, "seconds": 30}  # of MLflow's client, which would try for minutes


class AwayError(OSError):
    """The server takes nothing for the time being; what the run recorded waits on this machine."""


class Delivery:
    """The thread that delivers the journal of a run in order, and gives its signs of life."""

    def __init__(self, client: MlflowClient, run: entities.RunInfo, journal: Journal):
        self.client, self.run, self.journal = client, run, journal
        self.lease = Lease(client, run.run_id, journal.about["owner"])
        self._error: BaseException | None = None  # what ends the run
        self._is_refused = self._is_over = self._is_told = False
        self._arrived = monotonic()  # when the server answered last, or nothing waited
        self._owned = self._arrived  # when the run was seen to be ours last
        self._reason = "no answer"
        self._thread = Thread(target=self._work, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        """Raise what ends the run: it is another's by now, or the server refused what it recorded."""
        if self._error:
            raise self._error

    def finish(self, patience: float, rate: float) -> None:
        """Wait until all has arrived, and remove the journal.

        Raises AwayError where nothing arrives for `patience` seconds, and as many as a file takes at `rate` bytes a
        second; what ended the thread that delivers, if something did. What has not arrived waits on.
        """
        began = monotonic()
        while self._thread.is_alive() and (entry := self.journal.first()):
            if monotonic() - max(began, self._arrived) > patience + entry.size / rate:
                self._end()
                self.journal.close()
                raise AwayError(
                    f"the server takes nothing ({self._reason}); what the run recorded waits in {self.journal.folder}: "
                    "the same command, or digitlab store sync, sends it"
                )
            sleep(0.02)
        self._end()
        if self.journal.first() and not isinstance(self._error, TakenOverError):
            self.journal.close()
        else:
            self.journal.discard()
        self.check()

    def leave(self, _, error: BaseException | None, __) -> None:
        """Finish the run; where it ended by `error`, say no more than a line on what is still to be sent."""
        if isinstance(error, TakenOverError):
            self._end()
            self.journal.discard()
            return
        was_stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        limits = (PATIENCE_OF_SIGNALS, math.inf) if was_stopped else (PATIENCE, RATE)
        try:
            self.finish(*limits)
        except Exception as late:
            if error is None:
                raise
            if isinstance(late, AwayError):
                console.warn(str(late))

    def _end(self) -> None:
        self._is_over = True
        self.journal.added.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            self._deliver_all()
        except BaseException as error:  # such as a disk's, or that nobody reads what it prints
            self._error = error

    def _deliver_all(self) -> None:
        while not self._is_over:
            if monotonic() - self._owned >= lease.BEAT:
                self._attempt(self._renew, SLOWEST)
            elif entry := self.journal.first():
                self._attempt(self._deliver, SLOWEST + entry.size / RATE)
            else:
                self._arrived, self._is_told = monotonic(), False
                self.journal.added.wait(AGAIN)
                self.journal.added.clear()
            if isinstance(self._error, TakenOverError):
                return

    def _renew(self) -> None:
        self.lease.renew()
        self._owned = monotonic()

    def _deliver(self) -> None:
        entry = self.journal.first()
        if entry is None or monotonic() - self._owned >= lease.BEAT:  # as where this process was stopped for a while
            return
        if self._is_refused and entry.call == "set_terminated":
            entry.arguments["status"] = "FAILED"
        if not (self._is_refused and ["done", "true"] in entry.arguments.get("tags", ())):
            deliver(self.client, self.run, entry)
        self.journal.remove(entry)

    def _attempt(self, action: Callable[[], None], longest: float) -> None:
        """Do something in a thread of its own, which is left behind where its answer does not end."""
        outcome: list[Exception | None] = []

        def call() -> None:
            try:
                action()
                outcome.append(None)
            except Exception as error:
                outcome.append(error)

        thread, began = Thread(target=call, daemon=True), monotonic()
        thread.start()
        while thread.is_alive() and not self._is_over and monotonic() - began < longest:
            thread.join(0.1)
            self._say_outage()
        error = outcome[0] if outcome else TimeoutError("no answer")
        if error is None:
            if action == self._deliver:  # a sign of life arrives also where artifacts do not
                self._arrived = monotonic()
                if self._is_told:
                    console.say("the server answers again")
                self._is_told = False
        elif isinstance(error, TakenOverError):
            self._error = error
        elif is_refusal(error):
            self._error, self._is_refused, self._owned = error, True, monotonic()
            if action == self._deliver and (entry := self.journal.first()):
                self.journal.remove(entry)
        else:
            self._reason = redact(shorten(root_of(error)))
            until = monotonic() + AGAIN
            while monotonic() < until and not self._is_over:
                sleep(0.05)
                self._say_outage()

    def _say_outage(self) -> None:
        if not self._is_told and not self._is_over and monotonic() - self._arrived >= OUTAGE:
            self._is_told = True
            console.warn(
                f"the server does not answer ({self._reason}); the run goes on, and what it records waits in "
                f"{self.journal.folder}"
            )


def sync(store: Store, fingerprint: str = "") -> Iterator[str]:
    """Complete the runs that ended on this machine while the server was away; yield a line on each.

    With `fingerprint`, only the runs of it. Raises AwayError where the server takes nothing.
    """

    def is_being_sent(about: Mapping[str, str]) -> bool:  # by another command; the run goes on from there
        is_ours = about["owner"] == this_process()
        return about["fingerprint"] == fingerprint != "" and (is_ours or not is_running(about["owner"]))

    for journal in abandoned(store.uri, is_being_sent):
        if not journal.about:  # its process was killed while it made the journal
            journal.discard()
        elif fingerprint in ("", journal.about["fingerprint"]):
            run_id, owner = journal.about["run"], journal.about["owner"]
            if host_of(owner) != host_of(this_process()):  # which may have it open; the lock of a journal is this one's
                yield f"run {run_id} is of host {host_of(owner)}: what waits there is sent from there"
            else:
                yield f"run {run_id} {_complete(store.client, run_id, journal)}"


def _complete(client: MlflowClient, run_id: str, journal: Journal) -> str:
    """Deliver the journal of a process that has ended; say what became of it."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if not is_refusal(error):
            raise
        run = None
    if run is None or run.info.lifecycle_stage == "deleted":
        journal.discard()
        return "was deleted: what waited for it is dropped"
    if run.data.tags.get("owner") != journal.about["owner"]:
        journal.discard()
        return "was taken over by another process: what waited for it is dropped"
    if "error" in run.data.tags:  # somebody saw only that its process had ended
        remove_tag(client, run_id, "error")
    if run.info.status == "RUNNING" and not journal.has("set_terminated"):
        journal.put("set_terminated", {"status": "KILLED", "end_time": None})
        journal.put("log_batch", {"metrics": [], "params": [], "tags": [["error", "killed, no exit status"]]})
    delivery = Delivery(client, run.info, journal)
    refused = ""
    with timeouts(**ONE_CALL):
        delivery.start()
        try:
            delivery.finish(PATIENCE_OF_COMMANDS, RATE)
        except Exception as error:
            if not is_refusal(error):
                raise
            refused = f", but for what the server refused ({redact(shorten(root_of(error)))})"
    return f"is complete{refused}: {client.get_run(run_id).info.status}"
