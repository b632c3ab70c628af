"""Leases: who works on a run, where the store is a server, which other hosts use too.

Whoever works on a run gives signs of life; whoever wants it watches. The clocks of hosts need not agree.
"""

import errno
from dataclasses import dataclass
from time import monotonic, sleep, time

from mlflow import MlflowClient, entities

from digitlab.platform.process import owner_tags, this_process

BEAT = 60  # seconds between signs of life
LAPSE = 150  # seconds without one, in which somebody looked again and again, until a run is another's
SETTLE = 0.5  # seconds that what another host wrote takes at most to be seen
WON = "beat"  # the tag of the last sign of life, and of a run that was looked for and found to be the only one


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
    sleep(SETTLE)
    found = client.search_runs([experiment_id], f"tags.fingerprint = '{fingerprint}'")
    rivals = [run for run in found if run.info.status == "RUNNING"]
    first = min(rivals, key=lambda run: (run.info.start_time, run.info.run_id))
    if first.info.run_id == run_id and not any(WON in run.data.tags for run in rivals):
        client.set_tag(run_id, WON, f"{time():.0f}")
        return True
    client.set_terminated(run_id, "KILLED")
    client.delete_run(run_id)
    return False


def take_over(client: MlflowClient, run_id: str) -> bool:
    """Make this process the owner of a run that broke off; False where another host did the same."""
    client.update_run(run_id, status="RUNNING")
    before = client.get_run(run_id).data.tags
    client.log_batch(run_id, tags=[entities.RunTag(*each) for each in owner_tags(before).items()])
    sleep(SETTLE)
    return _owner(client, run_id) == this_process()


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
