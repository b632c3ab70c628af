"""Disks that fail: small ones, mounted in their own mount namespace, and damage to a store."""

import ctypes
import random
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest


class Disks:
    """Small disks in a mount namespace that a keeper process holds; only processes that enter it see them."""

    def __init__(self):
        self.keeper = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "echo ready; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self.keeper.stdout.readline() != "ready\n":
            pytest.skip("user namespaces are not available, so small disks cannot be mounted")

    def mount(self, folder: Path) -> None:
        self._enter("mount", "-t", "tmpfs", "tmpfs", folder)

    def remount(self, folder: Path, options: str) -> None:
        self._enter("mount", "-o", f"remount,{options}", folder)

    def seen(self, path: Path) -> Path:
        """Return the path by which a path in the namespace is reached from outside."""
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


def put_garbage(file: Path, seed: int = 0) -> None:
    """Overwrite a page in the middle of the points."""
    with closing(sqlite3.connect(file)) as database:
        try:
            pages = database.execute(
                "select pageno from dbstat where name = 'metrics' and pagetype = 'leaf'"
            ).fetchall()
        except sqlite3.OperationalError:  # sqlite was built without dbstat
            pages = [(page,) for page in range(100, 120)]
        (size,) = database.execute("pragma page_size").fetchone()
    (page,) = pages[len(pages) // 2]
    with file.open("r+b") as written:
        written.seek((page - 1) * size)
        written.write(random.Random(seed).randbytes(size))
