"""Read and compare the content of checkpoint files."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import torch


def read(file: Path) -> dict | None:
    try:
        with zipfile.ZipFile(file) as archive:
            return None if archive.testzip() else torch.load(file, weights_only=True)
    except Exception:
        return None


def _bytes(tensor: torch.Tensor) -> bytes:
    """Return the bytes of a tensor; numpy knows no bfloat16."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def digest(value: Any) -> str:
    """Hash every value in a checkpoint, of weights, optimizer, scheduler and callbacks, except the id of the run."""
    hashed = hashlib.sha256()

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            for key in sorted(node, key=str):
                if key not in ("run", "loops"):  # the loops count restarts
                    hashed.update(str(key).encode())
                    visit(node[key])
        elif isinstance(node, list | tuple):
            for each in node:
                visit(each)
        elif isinstance(node, torch.Tensor):
            hashed.update(f"{node.dtype}{tuple(node.shape)}".encode() + _bytes(node))
        else:
            hashed.update(repr(node).encode())

    visit(value)
    return hashed.hexdigest()
