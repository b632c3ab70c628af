"""Processes: a name that no other one has, and whether it is still running."""

import os
import socket

import psutil


def this_process() -> str:
    """Return a unique name of this process: host, process id, start time in seconds."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def is_running(name: str) -> bool:
    """Say whether the process of this name may be running; one of another host cannot be checked, and may be."""
    host, pid, started = name.split(":")
    if host != socket.gethostname():
        return bool(host)
    try:
        process = psutil.Process(int(pid))
        return f"{process.create_time():.0f}" == started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
