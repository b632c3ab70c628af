"""A store in a file is refused where its file system has no locks, or only locks of one host."""

import errno
import fcntl
import os

import pytest

from digitlab.tracking import filesystem

RUN = ("data=mnist5k", "trainer=cpu", "trainer.max_epochs=1", "model=mlp")
ROOT = "21 1 254:0 / / rw,relatime - ext4 /dev/vda rw"
CURE = "keep the store on a local disk, or give a server's address as MLFLOW_TRACKING_URI"


@pytest.mark.parametrize("lock", ["flock", "lockf"])
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_no_locks_are_said_in_one_line_with_the_file_and_what_helps(harness, monkeypatch, lock, code):
    def fail(*_) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, lock, fail)
    file = harness.folder / "mlflow.db"
    reason = f"its file system gives no locks ({os.strerror(code)})"
    assert harness.main(*RUN) == f"error: tracking: {file}: {reason}; {CURE}"
    assert not file.exists()


@pytest.mark.parametrize(
    ("mounted", "reason"),
    [
        ("rw - nfs4 server:/home rw,vers=4.2,local_lock=none", ""),
        ("rw - nfs server:/home rw,vers=3,local_lock=none", ""),
        ("rw - nfs server:/home rw,vers=3,nolock,local_lock=all", "nfs with nolock"),
        ("rw - nfs4 server:/home rw,vers=4.2,local_lock=flock", "nfs4 with local_lock=flock"),
        ("rw - lustre 10.0.0.1@tcp:/scratch rw,flock,lazystatfs", ""),
        ("rw - lustre 10.0.0.1@tcp:/scratch rw,localflock", "lustre with localflock"),
        ("rw - cifs //server/share rw,nobrl", "cifs with nobrl"),
        ("rw shared:7 - fuse.sshfs me@server:/ rw,user_id=0", "fuse.sshfs"),
        ("rw - tmpfs tmpfs rw,nolock", ""),
    ],
)
def test_locks_of_one_host_only_are_refused(tmp_path, monkeypatch, mounted, reason):
    folder = tmp_path / "a folder"
    folder.mkdir()
    mounts = tmp_path / "mountinfo"
    other = f"40 21 0:50 / {tmp_path}/a rw - fuse.sshfs x rw"  # a folder whose name begins alike
    at = str(folder).replace(" ", "\\040")
    mounts.write_text(f"{ROOT}\n{other}\n41 21 0:51 / {at} {mounted}\n")
    monkeypatch.setattr(filesystem, "MOUNTS", mounts)
    file = folder / "mlflow.db"
    if reason:
        with pytest.raises(OSError, match="locks hold on one host only") as refused:
            filesystem.check_locks(file)
        assert str(refused.value) == f"{file}: is on {reason}, where locks hold on one host only; {CURE}"
        assert list(folder.iterdir()) == []
    else:
        filesystem.check_locks(file)


def test_a_lock_that_somebody_holds_is_a_lock(tmp_path):
    with (tmp_path / "mlflow.db.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        filesystem.check_locks(tmp_path / "mlflow.db")
