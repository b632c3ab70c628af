"""Several processes that share a run: how they meet, speak, and add up their gradients."""

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.distributed import PrefixStore, ProcessGroupGloo, Store, TCPStore, Work  # pyright: ignore[reportPrivateImportUsage]

from digitlab.config.errors import UserError
from digitlab.config.fingerprint import processes
from digitlab.platform.environment import started
from digitlab.training.launch import Others, ProcessEndedError

COME = timedelta(minutes=10)  # until all have loaded their libraries and data
SPEAK = timedelta(days=7)  # until the first has saved, or waited for a server: that it lives shows its connection


class Place(NamedTuple):
    """Which of the processes of a run this one is."""

    size: int  # how many they are
    rank: int
    local: int  # its rank among those on this machine

    @classmethod
    def find(cls, cfg: DictConfig) -> "Place":
        found = started()
        return cls(processes(cfg), found.rank if found else 0, found.local if found else 0)


ALONE = Place(1, 0, 0)


class Team:
    """The processes that share the run of a `fingerprint`, of which this one, at its `place`, works on a `device`.

    torchrun or srun has started all of them, or the first one starts the others, which end with it. Within this as a
    context they are told what to do, and at its end that there is nothing more to do.
    """

    def __init__(self, place: Place, fingerprint: str, device: torch.device):
        self.place, self.fingerprint, self.device = place, fingerprint, device
        self.is_given = started() is not None
        self.words: Any = None  # the connection by which the first tells the others what to do
        self.sums: Any = None  # the one by which all add up their gradients
        self.others: Others | None = None  # those that this process has started

    def __enter__(self) -> "Team":
        if self.place.size > 1 and self.is_given:
            with self._speaking():
                self.store = _board(self.place.rank)
            self.meet()
        return self

    def start(self, cfg: DictConfig) -> None:
        """Start the others on the run of `cfg`, unless they were started with this process."""
        if self.place.size == 1 or self.is_given:
            return
        served = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.store: Store = PrefixStore("attempt 0", served)
        self.others = Others(cfg, self.place.size, served.port)

    def meet(self) -> None:
        """Wait for all to be there, for the same run, and connect them; do nothing where they are."""
        if self.words:
            return
        count, rank, _ = self.place
        with self._speaking():
            self.store.set(f"fingerprint/{rank}", self.fingerprint)
            names = [f"fingerprint/{each}" for each in range(count)]
            began = time.monotonic()
            while not self.store.check(names):  # not by a wait, during which no signal would be heard
                if self.others and self.others.have_ended():
                    raise self._lost()
                if time.monotonic() - began > COME.total_seconds():
                    raise ProcessEndedError(f"{count} processes share the run, and not all of them came within {COME}")
                time.sleep(0.05)
            if any(self.store.get(name).decode() != self.fingerprint for name in names):
                raise UserError("the processes would not make the same run: their data or code differ")
            # Groups of our own, not torch's default one, in which torchmetrics and Lightning would speak too.
            self.words = self.sums = ProcessGroupGloo(self.store, rank, count, SPEAK)
            if self.device.type == "cuda":
                self.sums = _nccl(PrefixStore("nccl", self.store), rank, count, self.device)

    def tell(self, word: Mapping[str, Any]) -> None:
        """Send tensors and plain values to the others; nothing means that there is nothing more to do."""
        content = io.BytesIO()
        torch.save(dict(word), content)
        data = torch.frombuffer(content.getbuffer(), dtype=torch.uint8)
        for each in (torch.tensor(len(data)), data):
            self._wait(lambda each=each: self.words.broadcast(each, 0))

    def hear(self) -> dict[str, Any]:
        """Return what the first process tells next."""
        length = torch.tensor(0)
        self._wait(lambda: self.words.broadcast(length, 0))
        data = torch.empty(int(length), dtype=torch.uint8)
        self._wait(lambda: self.words.broadcast(data, 0))
        return torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=True)

    def add_up(self, parameters: Iterable[nn.Parameter], results: Tensor, images: int) -> Tensor:
        """Give each parameter the gradient of the whole batch, of which this process has `images`.

        `results` are the mean loss and the number correct of those; return those of the batch, and its images.
        A parameter that no process has a gradient of keeps none.
        """
        parameters = list(parameters)
        lacking = [each.grad is None for each in parameters]
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        ends = torch.tensor([float(images), *(not each for each in lacking)], device=results.device)
        flat = torch.cat([*(each.reshape(-1) for each in gradients), results, ends])
        size = len(flat) - len(ends) - len(results)
        flat[: size + 1] *= images
        self._wait(lambda: self.sums.allreduce([flat]))
        flat[: size + 1] /= flat[size + 2]
        found = flat[size + 3 :].tolist() if any(lacking) else [1] * len(parameters)
        views = flat[:size].split([each.numel() for each in gradients])
        for parameter, gradient, view, is_there in zip(parameters, gradients, views, found, strict=True):
            if is_there:  # copied, for a fused optimizer wants a gradient to lie in memory as its weight does
                parameter.grad = gradient.copy_(view.view_as(gradient))
        return flat[size : size + 3].clone()

    def end(self) -> None:
        """Let the others end, for there is nothing more to do."""
        if self.place.rank == 0 and self.words:
            self.tell({})
        self._close()

    def __exit__(self, kind: type | None, *_: Any) -> None:
        self._close() if kind else self.end()

    def _close(self) -> None:
        self.words = self.sums = None
        if self.others:
            self.others.end()
            self.others = None

    def _wait(self, begin: Callable[[], Work]) -> None:
        """Speak and listen, and hear signals meanwhile."""
        with self._speaking():
            work, pause = begin(), 1e-4
            while self.device.type == "cpu" and not work.is_completed():
                time.sleep(pause)
                pause = min(1.5 * pause, 2e-3)
            work.wait()

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of gloo, NCCL or the store, whose connection is lost
            raise self._lost() from error

    def _lost(self) -> ProcessEndedError:
        cause = self.others.cause() if self.others else ""
        return ProcessEndedError(cause or f"another of the {self.place.size} processes of the run has ended")


def _board(rank: int) -> Store:
    """Return where processes that something else has started meet: torchrun serves it, or the first one does."""
    found = started()
    if found and found.by == "srun":
        cluster = SLURMEnvironment()
        os.environ.update(MASTER_ADDR=cluster.main_address, MASTER_PORT=str(cluster.main_port))
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    is_served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = TCPStore(address, port, is_master=rank == 0 and not is_served, timeout=COME, wait_for_workers=False)
    return PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _nccl(store: Store, rank: int, count: int, device: torch.device) -> Any:
    from torch.distributed import ProcessGroupNCCL  # pyright: ignore[reportPrivateImportUsage]  of builds for CUDA only

    torch.cuda.set_device(device)
    options = ProcessGroupNCCL.Options()
    options._timeout = SPEAK
    return ProcessGroupNCCL(store, rank, count, options)
