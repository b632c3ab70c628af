"""How the jobs of this user stand in SLURM, by squeue, which also answers where a cluster keeps no accounts."""

import os
import subprocess
from typing import NamedTuple

FORMAT = "%i|%T|%r|%k"
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip
SECONDS = 60  # in which it answers


class Job(NamedTuple):
    """A job in the queue, or one that ended some minutes ago."""

    state: str
    reason: str  # why it is pending, or ended; "None" for none
    comment: str

    @property
    def mark(self) -> str:
        """The last word of the comment: a user's own may stand before it."""
        return self.comment.rpartition(" ")[2]

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def is_pending(self) -> bool:
        return self.state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT")


def jobs() -> dict[str, Job]:
    """Return the jobs by id, such as 12, or 12_3 in an array; raise OSError where SLURM does not answer."""
    command = ["squeue", f"--user={os.getuid()}", "--array", "--noheader", "--states=all", f"--format={FORMAT}"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"squeue: no answer in {SECONDS} s") from error
    if told.returncode:
        raise OSError(" ".join(told.stderr.split()) or f"squeue: exit code {told.returncode}")
    found = {}
    for line in told.stdout.splitlines():
        number, *job = line.split("|", 3)
        if len(job) == 3:  # and no line of a plugin of SLURM
            found[number] = Job(*job)
    return found
