"""Leases: who works on a run, where the store is a server, which other hosts use too.

Whoever works on a run gives signs of life; whoever wants it watches. The clocks of hosts need not agree.
"""

import errno
from dataclasses import dataclass
from hashlib import sha256
from random import SystemRandom
from time import monotonic, sleep, time

from mlflow import MlflowClient, entities

from digitlab.platform.process import owner_tags, this_process
from digitlab.tracking.tags import remove_tag

BEAT = 60  # seconds between signs of life
LAPSE = 150  # seconds without one, in which somebody looked again and again, until a run is another's
SETTLE = 0.5  # seconds in which hosts that begin together have created their runs
WON = "beat"  # the tag of the last sign of life, and of a run that was looked for and found to be the only one
WANTED = "wanted_by."  # the start of the tag of a process that is about to take a run over


@dataclass
class _Sight:
    seen: tuple
    first: float
    last: float


_sights: dict[str, _Sight] = {}  # by run


def has_lapsed(run: entities.Run) -> bool:
    """Say whether a RUNNING run has stood still for LAPSE seconds of being looked at by this process."""
    now, seen = monotonic(), (run.data.tags, run.data.metrics)  # an older digitlab has no beat, but points
    sight = _sights.get(run.info.run_id)
    if sight is None or sight.seen != seen or now - sight.last > BEAT:  # as where the server was away
        sight = _sights[run.info.run_id] = _Sight(seen, now, now)
    sight.last = now
    return now - sight.first >= LAPSE


def is_first(client: MlflowClient, experiment_id: str, run_id: str, fingerprint: str) -> bool:
    """Say whether a run that was just created is the one of its fingerprint to be made, and no other host's is.

    Of runs that were created at the same time the earliest is. One that is not is deleted.
    """

    def found() -> list[entities.Run]:
        return client.search_runs([experiment_id], f"tags.fingerprint = '{fingerprint}'")

    def is_begun(run: entities.Run) -> bool:
        return run.info.run_id != run_id and (WON in run.data.tags or run.info.status != "RUNNING")

    sleep(SETTLE)
    runs = found()
    first = min(runs, key=lambda run: (run.info.start_time, run.info.run_id))
    if first.info.run_id == run_id and not any(map(is_begun, runs)):
        client.set_tag(run_id, WON, f"{time():.0f}")
        if not any(map(is_begun, found())):  # by a host that was slow to say so
            return True
    remove_tag(client, run_id, "fingerprint")  # or another host would find a run that broke off, and continue it
    client.set_terminated(run_id, "KILLED")
    client.delete_run(run_id)
    return False


def take_over(client: MlflowClient, run: entities.Run) -> bool:
    """Make this process the owner of a run that broke off, as `run` shows it; False where another one may do so too.

    Each says first that it wants to, and then looks whether others do: so of two at least one sees the other, however
    slow a request is (Dekker's algorithm). Both may withdraw; each tries again after a time of its own.
    """
    run_id, before = run.info.run_id, run.data.tags
    ours, others = WANTED + sha256(this_process().encode()).hexdigest()[:16], _wanted(run)
    is_ours = False
    if not others or has_lapsed(run):  # else somebody is about to, or died when it was
        client.set_tag(run_id, ours, f"{time():.0f}")
        now = client.get_run(run_id)
        is_unchanged = (now.info.status, now.data.tags.get("owner")) == (run.info.status, before.get("owner"))
        is_ours = is_unchanged and _wanted(now) - others == {ours}
        if is_ours:
            client.update_run(run_id, status="RUNNING")
            client.log_batch(run_id, tags=[entities.RunTag(*each) for each in owner_tags(before).items()])
        for key in {ours, *(others if is_ours else ())}:
            remove_tag(client, run_id, key)
    if not is_ours:
        sleep(SystemRandom().uniform(SETTLE, 5 * SETTLE))  # a training's seed is the same on all hosts
    return is_ours


def _wanted(run: entities.Run) -> set[str]:
    return {key for key in run.data.tags if key.startswith(WANTED)}


class TakenOverError(OSError):
    """This process gave no sign of life for so long that another one has taken its run over."""


class Lease:
    """The signs of life of a run, which `owner` works on."""

    def __init__(self, client: MlflowClient, run_id: str, owner: str):
        self.client, self.run_id, self.owner = client, run_id, owner

    def renew(self) -> None:
        """Give a sign of life; raise TakenOverError where the run is another's by now."""
        if _owner(self.client, self.run_id) != self.owner:
            raise TakenOverError(errno.ESTALE, "another process has taken the run over", self.run_id)
        self.client.set_tag(self.run_id, WON, f"{time():.0f}")


def _owner(client: MlflowClient, run_id: str) -> str | None:
    return client.get_run(run_id).data.tags.get("owner")
