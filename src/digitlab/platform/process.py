"""Processes: a name that no other one has, whether it is still running, and ending with the one that started it."""

import ctypes
import os
import signal
import socket
import sys

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


def end_with_parent(parent: int) -> None:
    """Have this process killed when process `parent`, which started it, ends; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG of <sys/prctl.h>
        if os.getppid() != parent:  # it has ended meanwhile
            os._exit(1)
