"""Servers in their own processes: MLflow's tracking server, and the UI as make starts it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import requests


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A command that serves on a free port, which replaces "{port}" in the command."""

    def __init__(self, command: Sequence[str], folder: Path | None = None, environment: Mapping[str, str] = os.environ):
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        self.command = [part.replace("{port}", str(port)) for part in command]
        self.folder, self.environment = folder, environment

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < deadline:
            with suppress(requests.RequestException):
                if requests.get(f"{self.uri}/health", timeout=5).ok:
                    return
            time.sleep(0.3)
        self.stop()
        pytest.fail(f"{' '.join(self.command)} does not come up")

    def stop(self) -> None:
        """Kill the server and its worker processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()


def tracking_server(database: Path, artifacts: Path, **environment: str) -> Server:
    """Return MLflow's server on a sqlite file, which also keeps the artifacts."""
    options = f"--backend-store-uri sqlite:///{database} --artifacts-destination {artifacts} --host 127.0.0.1"
    command = [sys.executable, "-m", "mlflow", "server", *options.split(), "--port", "{port}", "--workers", "1"]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | environment
    return Server(command, environment=os.environ | settings)


def ui(repository: Path, environment: Mapping[str, str]) -> Server:
    """Return the server that `make ui` starts."""
    return Server(["make", "ui", "PORT={port}"], repository, environment)


def serving(uri: str, *models: str) -> Server:
    """Return the server that `digitlab serve` starts, for models in the store at `uri`."""
    command = [sys.executable, "-m", "digitlab", "serve", *models, "--port", "{port}"]
    return Server(command, environment=os.environ | {"MLFLOW_TRACKING_URI": uri, "PYTHONPATH": "src"})
