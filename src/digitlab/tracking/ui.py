"""Show a store in MLflow's UI: that of its server, or one that is started here."""

import os
import socket
import sys

from digitlab.config.errors import UserError
from digitlab.platform import console
from digitlab.tracking.store import Store


def ui(store: Store, port: int) -> int:
    """Say where the experiment is shown; return 0 where a server shows it, else serve it until Ctrl-C.

    Raises UserError where something else listens at the port.
    """
    if not store.is_server and is_taken(port):
        raise UserError(f"--port={port}: something else listens there; PORT={port + 1} make ui takes another port")
    console.say(f"Runs: {store.experiment_address(port)}")
    if not store.is_server:
        console.say("Ctrl-C stops it; PORT=5001 make ui, or digitlab ui --port 5001, takes another port.")
        sys.stdout.flush()
        # One worker and no jobs: the start takes 4 s instead of 8, and nothing is left running.
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        place = {"MLFLOW_BACKEND_STORE_URI": store.uri}  # not a word of the command: a list of processes shows those
        words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        os.execve(sys.executable, [sys.executable, "-m", "mlflow", "ui", *words], os.environ | quiet | place)
    return 0


def is_taken(port: int) -> bool:
    """Say whether a program listens at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
