"""Listen for requests, and answer them until a signal ends it."""

import signal
import socket
from typing import Any

import uvicorn

from digitlab.config.errors import UserError
from digitlab.platform import console

GRACE = 10  # seconds for requests that are under way, when the server is to end


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """Return a socket that listens, and its address for a browser here; UserError where that cannot be."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (")[0]
        raise UserError(f"--host={host} --port={port}: cannot be listened to: {reason}") from error
    here = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host) or (f"[{host}]" if ":" in host else host)
    return listening, f"http://{here}:{listening.getsockname()[1]}"


def warn_of_others(host: str) -> None:
    """Say it where others can reach the server."""
    if host not in ("127.0.0.1", "localhost", "::1"):
        console.say(f"--host={host}: whoever reaches this machine can use it; there is no password")


def answer(app: Any, listening: socket.socket) -> None:
    """Answer requests until a signal ends it."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE,
        limit_concurrency=1000,
    )  # fmt: skip
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: None)  # uvicorn hears them, and sends them again once it has ended
    uvicorn.Server(config).run(sockets=[listening])
