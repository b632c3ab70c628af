"""A SLURM of two nodes on this machine, in its own folder and on free ports."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
from program import processes
from servers import free_port
from services import wait_until

from digitlab.platform.signals import end_with_parent

NODES = ("node1", "node2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
# Without accounting, cgroups or a mail program; each node has more CPUs than this machine, so that jobs share them.
CONFIGURATION = """\
ClusterName=digitlab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
ReturnToService=2
SlurmdTimeout=5
KillWait=5
OverTimeLimit=0
MinJobAge=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=ALL Default=YES State=UP PriorityTier=1 GraceTime=10
PartitionName=urgent Nodes=ALL State=UP PriorityTier=2 PreemptMode=OFF
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=64000\n"


def missing_slurm() -> str:
    """Say what a cluster needs that is not here; "" where all is there."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    programs = [each for each in PROGRAMS if not shutil.which(each, path=path)]
    return f"{', '.join(programs)}, of slurm-wlm and munge" if programs else "root" if os.getuid() else ""


class Cluster:
    """A running SLURM; `environment` leads its clients and our own programs to it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # munge's socket has a path of 108 bytes at most
        self.processes: dict[str, subprocess.Popen] = {}
        for name in ("munge", "state", *NODES):
            (self.folder / name).mkdir()
        self.folder.chmod(0o755)
        key, host = self.folder / "munge" / "key", socket.gethostname()
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        (self.folder / "munge").chmod(0o711)
        nodes = [NODE.format(name=name, host=host, port=free_port()) for name in NODES]
        settings = CONFIGURATION.format(folder=self.folder, host=host, port=free_port())
        head, partitions = settings.split("PartitionName", 1)
        self.configuration = self.folder / "slurm.conf"
        self.configuration.write_text(head + "".join(nodes) + "PartitionName" + partitions)
        self.environment = {"SLURM_CONF": str(self.configuration)}
        try:
            self._start_all()
        except TimeoutError:
            self.stop()
            raise

    def _start_all(self) -> None:
        names = {f"--{each}-file": f"{self.folder}/munge/{each}" for each in ("key", "pid", "log", "seed")}
        places = [f"{name}={place}" for name, place in names.items()]
        self._start("munged", "--foreground", "--force", f"--socket={self.folder}/munge/socket", *places)
        wait_until((self.folder / "munge" / "socket").exists)
        self._start("slurmctld", "-D")
        wait_until(lambda: "UP" in self.ask("scontrol", "ping"))
        for name in NODES:
            self.start_node(name)
        wait_until(lambda: self.states() == ["idle"] * len(NODES))

    def _start(self, program: str, *arguments: str, name: str = "") -> None:
        path = f"{os.environ['PATH']}:/usr/sbin"
        self.processes[name or program] = subprocess.Popen(
            [shutil.which(program, path=path) or program, *arguments],
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=partial(end_with_parent, os.getpid()),  # else it would outlive a test that is killed
        )

    def start_node(self, name: str) -> None:
        self._start("slurmd", "-D", "-N", name, name=name)

    def lose_node(self, name: str) -> None:
        """End a node as a loss of power would: its slurmd and all that runs on it, before any of them can tell."""
        own = self._jobs_processes({"SLURMD_NODENAME": name})
        steps = {parent for each in own if (parent := each.parent()) and parent.name().startswith("slurmstepd")}
        for process in (psutil.Process(self.processes[name].pid), *steps, *own):  # those that tell SLURM come first
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.processes[name].wait()

    def _jobs_processes(self, variables: Mapping[str, str] = {}) -> list[psutil.Process]:
        """Return the processes that slurmd has started, and their descendants; of these those with `variables`.

        Children of the tests have the same environment, among them the resource tracker of multiprocessing.
        """
        meant = (self.environment | variables).items()
        started = processes(lambda each: meant <= each.environ().items())
        return [each for each in started if os.getpid() not in (each.pid, each.ppid())]

    def ask(self, *command: str) -> str:
        """Return what a client of SLURM prints."""
        told = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=30, check=False
        )
        return told.stdout

    def states(self) -> list[str]:
        """Return the states of the nodes."""
        return self.ask("sinfo", "-h", "-N", "-p", "all", "-o", "%T").split()

    def jobs(self) -> dict[str, str]:
        """Return the states of the jobs, those of the last seconds included, by their ids."""
        lines = self.ask("squeue", "-h", "-r", "-t", "all", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def end_jobs(self) -> None:
        """End every job."""
        self.ask("scancel", "--user=root")
        self.ask("scancel", "--signal=KILL", "--full", "--user=root")

    def stop(self) -> None:
        """End every process of the cluster and its jobs, and remove its folder."""
        self.end_jobs()
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(each.poll() is None for each in self.processes.values()):
            time.sleep(0.1)
        for process in (*self.processes.values(), *self._jobs_processes()):  # slurmstepd, and slurmctld's own child
            process.kill()
        for process in self.processes.values():
            process.wait()
        shutil.rmtree(self.folder)
