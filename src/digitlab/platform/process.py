"""Processes: a name that no other one has, and whether it is still running."""

import os
import socket
from collections.abc import Mapping

import psutil


def this_process() -> str:
    """Return a unique name of this process: host, process id and where it counts, start time in seconds."""
    return f"{socket.gethostname()}:{os.getpid()}@{_namespace()}:{psutil.Process().create_time():.0f}"


def this_job() -> str:
    """Return the id of the SLURM job that this process is the work of, such as 12 or 12_3; "" where it is of none."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":  # somebody else's job may start several processes
        return ""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")


def owner_tags(before: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a run that say who works on it, for this process; `before` are those that it had."""
    return {"owner": this_process()} | ({"job": this_job()} if this_job() or "job" in before else {})


def is_running(name: str) -> bool:
    """Say whether the process of this name may be running; one of another host cannot be checked, and may be."""
    if not is_of_this_host(name):
        return bool(host_of(name))
    _, number, started = name.split(":")
    try:
        process = psutil.Process(int(number.partition("@")[0]))
        return f"{process.create_time():.0f}" == started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def host_of(name: str) -> str:
    """Return the host of the process of this name."""
    return name.partition(":")[0]


def is_of_this_host(name: str) -> bool:
    """Say whether a process of this name would be one of those that this host, or this container of it, counts."""
    _, number, _ = name.split(":")
    _, has_namespace, namespace = number.partition("@")
    return host_of(name) == socket.gethostname() and (not has_namespace or namespace == _namespace())


def _namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""
