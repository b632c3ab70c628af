"""Begin runs in a store, each once, also where the answer of its server is lost."""

from collections.abc import Mapping
from time import monotonic, sleep
from uuid import uuid4

from mlflow import entities
from mlflow.exceptions import MlflowException

from digitlab.platform.process import owner_tags
from digitlab.platform.secrets import redact
from digitlab.platform.text import printable
from digitlab.tracking import queries
from digitlab.tracking.failures import is_refusal
from digitlab.tracking.lease import is_first
from digitlab.tracking.run import Run
from digitlab.tracking.store import Store, timeouts, user_name

PATIENCE = 60  # seconds until a run that cannot be created is given up
AGAIN = 1  # seconds until it is tried again
REQUEST = "request"  # the tag that tells the runs that one request made


def begin(store: Store, name: str, tags: Mapping[str, str]) -> Run:
    """Start a new run."""
    source = {"mlflow.source.type": "LOCAL", "mlflow.source.name": "src/train.py"}
    tags = {"mlflow.user": user_name(), **owner_tags({}), **source, **tags}
    return Run(store.client, create(store, printable(redact(name)), tags))


def open_parent(store: Store, sweep: str) -> Run:
    """Start the parent run of the sweep named, or reopen it; hosts that run the same sweep share it."""
    fingerprint = f"sweep-{sweep}"
    tags = {"fingerprint": fingerprint, "sweep": sweep, "mlflow.user": user_name()}
    while True:
        done, broken = queries.find(store, fingerprint)
        run = broken or done
        if not run:
            run = create(store, sweep, tags)
            if not (store.file or is_first(store.client, store.experiment_id, run.info.run_id, fingerprint)):
                continue
        return Run(store.client, run, is_monitored=False)


def create(store: Store, name: str, tags: Mapping[str, str], start_time: int | None = None) -> entities.Run:
    """Create a run; where a server's answer is lost, look whether it did so before it is asked again."""
    if store.file:
        return store.client.create_run(store.experiment_id, start_time, dict(tags), name)
    request, until = uuid4().hex, monotonic() + PATIENCE
    tags = {**tags, REQUEST: request}
    with timeouts(retries=0, seconds=15):
        while True:
            try:
                return store.client.create_run(store.experiment_id, start_time, tags, name)
            except MlflowException as error:
                if is_refusal(error) or monotonic() > until:
                    raise
            if found := _look(store, request, until):
                return found


def _look(store: Store, request: str, until: float) -> entities.Run | None:
    while True:
        sleep(AGAIN)
        try:
            found = store.client.search_runs([store.experiment_id], f"tags.{REQUEST} = '{request}'", max_results=1)
            return found[0] if found else None
        except MlflowException:
            if monotonic() > until:
                raise
