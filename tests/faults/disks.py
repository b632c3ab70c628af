"""Folders that are small disks, in a mount namespace of their own."""

import ctypes
import subprocess
from pathlib import Path

import pytest


class Disks:
    """Folders that are small disks, seen only by the processes that enter the namespace kept here."""

    def __init__(self):
        self.keeper = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "echo ready; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self.keeper.stdout.readline() != "ready\n":
            pytest.skip("no user namespaces here: small disks cannot be made")

    def mount(self, folder: Path) -> None:
        self._enter("mount", "-t", "tmpfs", "tmpfs", folder)

    def remount(self, folder: Path, options: str) -> None:
        self._enter("mount", "-o", f"remount,{options}", folder)

    def seen(self, path: Path) -> Path:
        """Where a path of the namespace is to be found from outside."""
        return Path(f"/proc/{self.keeper.pid}/root{path}")

    def close(self) -> None:
        self.keeper.communicate()

    def _enter(self, *command) -> None:
        inside = ["nsenter", "-t", str(self.keeper.pid), "--user", "--mount", "--preserve-credentials"]
        subprocess.run([*inside, *command], check=True)


def enter_namespace(keeper: int) -> None:
    for kind in ("user", "mnt"):
        with open(f"/proc/{keeper}/ns/{kind}") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
                raise OSError(ctypes.get_errno(), f"setns {kind}")
