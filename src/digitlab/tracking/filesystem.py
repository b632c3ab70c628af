"""The file system of a store that is a file: its locks must hold for everybody who writes to it."""

import fcntl
import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
CURE = "keep the store on a local disk, or give a server's address as MLFLOW_TRACKING_URI"
# File systems that several hosts use, and by which options their locks hold on one host only.
LOCAL_LOCKS = {
    r"nfs4?": r"nolock|local_lock=(?!none).*",
    r"cifs|smb3": r"nobrl",
    r"lustre": r"localflock|noflock",
    r"fuse\.(sshfs|s3fs|gcsfuse|goofys|rclone|mount-s3)": r".*",
}


def check_locks(file: Path) -> None:
    """Raise OSError, with what helps, where two processes could write to the store `file` at once."""
    kind, options = _mount(file.parent)
    for kinds, local in LOCAL_LOCKS.items():
        found = next((each for each in options if re.fullmatch(local, each)), None)
        if re.fullmatch(kinds, kind) and found:
            where = kind if local == ".*" else f"{kind} with {found}"
            raise OSError(f"{file}: is on {where}, where locks hold on one host only; {CURE}")
    descriptor = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # ours
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # sqlite's
    except (BlockingIOError, PermissionError):  # somebody else holds it
        pass
    except OSError as error:
        raise OSError(f"{file}: its file system gives no locks ({error.strerror}); {CURE}") from error
    finally:
        os.close(descriptor)


def _mount(folder: Path) -> tuple[str, list[str]]:
    """Return the kind of the file system that a folder is on, and its options."""
    try:
        lines = MOUNTS.read_text().splitlines()
    except OSError:  # not Linux
        return "", []
    found: tuple[int, str, list[str]] = (-1, "", [])
    for line in lines:
        mount, _, system = line.partition(" - ")
        place = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), mount.split()[4]))
        if folder.resolve().is_relative_to(place) and len(place.parts) >= found[0]:
            kind, _, options = system.split(" ", 2)
            found = len(place.parts), kind, [*mount.split()[5].split(","), *options.split(",")]
    return found[1:]
