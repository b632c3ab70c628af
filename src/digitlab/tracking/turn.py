"""Whose turn it is to make a run: of all processes and hosts that want it one makes it, and the others wait."""

import time
from collections.abc import Mapping

from mlflow import entities

from digitlab.config.errors import UserError
from digitlab.platform import console
from digitlab.platform.process import host_of
from digitlab.tracking import lease, locks, queries
from digitlab.tracking.begin import begin
from digitlab.tracking.delivery import sync
from digitlab.tracking.run import Run
from digitlab.tracking.store import Store

LOOK_AGAIN = 10  # seconds


class UnderWayError(UserError):
    """Another host is at work on a run."""


def find_or_begin(
    store: Store, name: str, tags: Mapping[str, str], rerun: bool, may_wait: bool
) -> tuple[Run, entities.Run | None]:
    """Return the run of a fingerprint to make, that which broke off or a new one; or one that is done, and its data.

    - `name`, `tags`: of a new run; the tags have the fingerprint.
    - `rerun`: make one even where one is done, or under way on another host.
    - `may_wait`: wait for another host that is at work on it, instead of raising UnderWayError.
    """
    if not store.file:
        for line in sync(store, tags["fingerprint"]):
            console.say(line)
    is_waiting = is_ending = False
    while True:
        done, broken = queries.find(store, tags["fingerprint"])
        if done and not rerun:
            return Run(store.client, done), done
        if broken and broken.info.status == "FINISHED" and not (store.file or is_ending):
            is_ending = True  # the tag `done`, which follows its status, may be on its way
            time.sleep(2)
            continue
        is_busy = broken is not None and locks.is_owner_alive(store, broken)
        if broken and is_busy and not rerun:
            where = f"run {broken.info.run_id}, under way on host {host_of(broken.data.tags['owner'])}"
            if not may_wait:
                raise UnderWayError(where)
            if not is_waiting:
                console.say(f"waiting for {where}; rerun=true starts another")
            is_waiting = True
            time.sleep(LOOK_AGAIN)
        elif broken and not is_busy:
            if store.file or lease.take_over(store.client, broken):
                run = Run(store.client, broken)
                console.say(f"continuing {run.name} (run {run.id})")
                return run, None
        else:
            run = begin(store, name, tags)
            if rerun or store.file or lease.is_first(store.client, run.experiment_id, run.id, tags["fingerprint"]):
                return run, None
