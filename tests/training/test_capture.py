"""What a CUDA graph captures of a training step, without a GPU: a lint on `meta` tensors, an emulator on the CPU."""

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from capture_lint import LintedGraph
from graph_emulator import EmulatedGraph, HostTensor
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils._pytree import tree_map

from digitlab.data.batches import Batches, Chunks
from digitlab.data.preprocess import Preprocess
from digitlab.models.bfloat16 import compute_in_bfloat16
from digitlab.models.networks import ConvNet
from digitlab.training import classifier as training
from digitlab.training import cuda_graph, precision
from digitlab.training.averaging import Average
from digitlab.training.checkpoint import ReseedEveryEpoch
from digitlab.training.classifier import Classifier
from digitlab.training.cuda_graph import Graph, make_capturable
from digitlab.training.parameter_groups import groups

CONF = Path(__file__).parents[2] / "conf"
NETWORKS = sorted(file.stem for file in (CONF / "model").glob("*.yaml"))
OPTIMIZERS = sorted(file.stem for file in (CONF / "optim").glob("*.yaml"))
SUPPORTED = {f"_get_{kind}_supported_devices" for kind in ("capturable", "fused_kernels", "foreach_kernels")}
FUSED = [name for name in OPTIMIZERS if "fused: true" in (CONF / "optim" / f"{name}.yaml").read_text()]
EPOCHS, STEPS = 2, 7  # a tail follows the whole batches of each epoch


def stand_in(patch: pytest.MonkeyPatch, device: str) -> None:
    """Let `device` stand for a GPU: the optimizers take their paths for one, and nothing waits for CUDA."""
    patch.setattr(cuda_graph, "DEVICE", device)
    patch.setattr(torch.cuda, "synchronize", lambda: None)
    modules = [module for name, module in sys.modules.items() if name.startswith(("torch.optim.", "torch.utils._fo"))]
    for module in modules:
        for name in SUPPORTED & set(vars(module)):
            patch.setattr(module, name, lambda *_, **__: [device])
    autocast = torch.autocast
    patch.setattr(torch, "autocast", lambda kind, **given: autocast("cpu" if kind == "meta" else kind, **given))


def float_rate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(training, "make_capturable", lambda optimizer, moves, *_: make_capturable(optimizer, moves=False))


def unnoticed_float_rate(patch: pytest.MonkeyPatch) -> None:
    float_rate(patch)
    patch.setattr(cuda_graph, "_constants", lambda optimizer: [])


def host_rate(patch: pytest.MonkeyPatch) -> None:
    def leave_tensors(optimizer, moves, *_):
        rates = [group["lr"] for group in optimizer.param_groups]
        is_capturable = make_capturable(optimizer, moves)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate if isinstance(rate, Tensor) else group["lr"]
        return is_capturable

    patch.setattr(training, "make_capturable", leave_tensors)


def no_warm_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cuda_graph, "WARM_UP", 0)


def autocast_cache(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MixedPrecision, "autocast_context_manager", lambda self: torch.autocast("cpu", dtype=torch.bfloat16))


def optimizer_of(network: nn.Module, name: str, is_plain: bool) -> torch.optim.Optimizer:
    """Make an optimizer, with biases in a group of their own unless it `is_plain`."""
    partial = instantiate(OmegaConf.load(CONF / "optim" / f"{name}.yaml"), _convert_="all")
    return partial(groups(network, {} if is_plain else {"lr": 2e-3}))


def lint(network: str, optim: str, is_plain: bool = False, kind: str = "bf16-mixed") -> None:
    """Lint a fresh run in a precision, then the same resumed."""
    saved = None
    for _ in ("fresh", "resumed"):
        with torch.device("meta"):
            norm = (
                {"blocks": [{"channels": 4, "batch_norm": "after"}]} if network == "cnn_simple" and not is_plain else {}
            )
            built = instantiate(OmegaConf.load(CONF / "model" / f"{network}.yaml"), **norm)
            images, labels = torch.empty(64, 1, 28, 28), torch.empty(64, dtype=torch.int64)
            if kind == "bf16-true":
                compute_in_bfloat16(built)
        optimizer = optimizer_of(built, optim, is_plain)
        scheduler = None if is_plain else CosineAnnealingLR(optimizer, T_max=50)
        average = None if is_plain else Average("ema", 0.9)
        classifier = Classifier(built, optimizer, scheduler, clip=None if is_plain else 1.0, average=average).train()
        if average:
            average.follow(built)
        if saved:
            optimizer.load_state_dict(saved)
        if kind == "16-mixed":
            classifier.scaler = GradScaler("meta")
        assert training.make_capturable(optimizer, not is_plain, kind == "16-mixed")
        graph = LintedGraph(classifier._step, optimizer)
        for _ in range(cuda_graph.WARM_UP + 2):
            with MixedPrecision(kind, "cpu").forward_context() if kind != "bf16-true" else nullcontext():
                graph(images, labels)
            if scheduler:
                scheduler.step()
        assert graph.replays == 2
        # As a checkpoint comes back: everything on the CPU.
        saved = tree_map(
            lambda leaf: torch.zeros(leaf.shape, dtype=leaf.dtype) if isinstance(leaf, Tensor) else leaf,
            optimizer.state_dict(),
        )


def cases() -> list:
    """Every network with every optimizer; the fast ones leave out what differs in neither from another."""
    of = [(network, optim) for network in NETWORKS for optim in OPTIMIZERS]
    return [
        pytest.param(*case, marks=() if case[0] == "mlp" or case[1] == "sgd_momentum" else pytest.mark.slow)
        for case in of
    ]


@pytest.mark.table
@pytest.mark.parametrize(("network", "optim"), cases())
@pytest.mark.parametrize("is_plain", [True, False], ids=["plain", "scheduler, clip, biases apart, batch norm, average"])
def test_every_step_can_be_captured(network, optim, is_plain, monkeypatch):
    stand_in(monkeypatch, "meta")
    monkeypatch.setattr(cuda_graph, "WARM_UP", 1)
    lint(network, optim, is_plain)


@pytest.mark.parametrize("kind", ["bf16-true", "16-mixed"])
@pytest.mark.parametrize("is_plain", [True, False], ids=["plain", "scheduler, clip, biases apart, batch norm, average"])
def test_every_step_of_a_fused_optimizer_can_be_captured_in_half_precision(kind, is_plain, monkeypatch):
    stand_in(monkeypatch, "meta")
    monkeypatch.setattr(cuda_graph, "WARM_UP", 1)
    for optim in FUSED:
        lint("cnn_simple", optim, is_plain, kind)


def test_scaled_steps_of_others_look_at_the_gradients_so_they_are_not_captured(monkeypatch):
    stand_in(monkeypatch, "meta")
    monkeypatch.setattr(cuda_graph, "WARM_UP", 1)
    with pytest.warns(UserWarning, match="steps of Adadelta cannot be replayed"), pytest.raises(AssertionError):
        lint("mlp", "adadelta", kind="16-mixed")
    monkeypatch.setattr(training, "make_capturable", lambda optimizer, moves, _: make_capturable(optimizer, moves))
    with pytest.raises(AssertionError, match="waits for the GPU"):
        lint("mlp", "adadelta", kind="16-mixed")


@pytest.mark.parametrize(
    ("mutant", "words"),
    [
        (float_rate, "assert 0 == 2"),  # replays: a graph sees that the number changes, so that none is ever made
        (unnoticed_float_rate, "_fused_sgd_.default.* but this step needs .*_fused_sgd_.default"),
        (host_rate, "_fused_sgd_.tensor_lr touches a tensor of the CPU"),
        (no_warm_up, "captured .* but this step needs"),
        (autocast_cache, "autocast keeps its casts"),
    ],
)
def test_the_lint_sees(mutant, words, monkeypatch):
    stand_in(monkeypatch, "meta")
    monkeypatch.setattr(cuda_graph, "WARM_UP", 1)
    mutant(monkeypatch)
    with pytest.raises(AssertionError, match=words):
        lint("mlp", "sgd_momentum")


class Plainly(Graph):
    """The steps of a Graph without any."""

    def __call__(self, *tensors):
        return self.step(*tensors)


class HostCheckpoint(pl.Callback):
    """Mark what a checkpoint brings back for the optimizer's groups as the CPU's, where it would be beside a GPU."""

    def on_load_checkpoint(self, trainer, module, checkpoint):
        for state in checkpoint["optimizer_states"]:
            for group in state["param_groups"]:
                group.update({k: v.as_subclass(HostTensor) for k, v in group.items() if isinstance(v, Tensor)})


@pytest.fixture(scope="module")
def batches() -> Batches:
    generator = torch.Generator().manual_seed(0)
    count = 16 * STEPS + 5
    images = torch.randint(256, (count, 8, 8), generator=generator, dtype=torch.uint8)
    return Batches((images, torch.randint(10, (count,), generator=generator)), Preprocess(), batch_size=16)


def train(graph: type[Graph], batches: Batches, optim: str, is_plain: bool = False, kind: str = "32-true",
          resume_in: Path | None = None, accumulate: int = 1) -> list[Tensor]:  # fmt: skip
    """Train for two epochs, the second resumed from a checkpoint in a folder, if given; return all values."""
    checkpoint, EmulatedGraph.replays = None, 0
    for epochs in (1, EPOCHS) if resume_in else (EPOCHS,):
        torch.manual_seed(0)
        norm = {} if is_plain else {"batch_norm": "before"}
        network = ConvNet(
            [{"channels": 4, "dropout": 0.3} | norm], [{"units": 8, "dropout": 0.5} | norm], input_shape=(1, 8, 8)
        )
        if kind == "bf16-true":
            compute_in_bfloat16(network)
        optimizer = optimizer_of(network, optim, is_plain)
        scheduler = None if is_plain else CosineAnnealingLR(optimizer, T_max=EPOCHS * len(batches))
        average = None if is_plain else Average("ema", 0.9)
        ends = {"clip": None if is_plain else 0.5, "average": average, "accumulate": accumulate}
        classifier = Classifier(network, optimizer, scheduler, **ends)
        trainer = pl.Trainer(
            accelerator="cpu", **precision.settings(kind, "cpu"), max_epochs=epochs, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=[ReseedEveryEpoch(0), HostCheckpoint()],
        )  # fmt: skip
        if kind == "16-mixed":
            trainer.precision_plugin.scaler = GradScaler(
                "cpu", init_scale=2.0**24
            )  # with which the first steps overflow
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "Graph", graph)
            trainer.fit(classifier, Chunks(batches, 4), batches, ckpt_path=checkpoint, weights_only=True)
        if resume_in:
            checkpoint = resume_in / "last.ckpt"
            trainer.save_checkpoint(checkpoint)
    return [values.detach() for values in classifier.network.state_dict().values()]


@pytest.mark.table
@pytest.mark.parametrize("optim", OPTIMIZERS)
@pytest.mark.parametrize("is_plain", [True, False], ids=["plain", "scheduler, clip, biases apart, batch norm, average"])
def test_replays_equal_plain_steps_to_the_last_bit(optim, is_plain, batches, tmp_path, monkeypatch):
    stand_in(monkeypatch, "cpu")
    plain = train(Plainly, batches, optim, is_plain)
    replayed = train(EmulatedGraph, batches, optim, is_plain, resume_in=tmp_path)
    assert EmulatedGraph.replays == EPOCHS * (STEPS - cuda_graph.WARM_UP)
    assert all(map(torch.equal, plain, replayed))


def test_replays_of_several_batches_equal_plain_steps(batches, tmp_path, monkeypatch):
    stand_in(monkeypatch, "cpu")
    monkeypatch.setattr(cuda_graph, "WARM_UP", 1)
    plain = train(Plainly, batches, "adam", accumulate=2)
    replayed = train(EmulatedGraph, batches, "adam", resume_in=tmp_path, accumulate=2)
    assert EmulatedGraph.replays == EPOCHS * (STEPS // 2 - 1)
    assert all(map(torch.equal, plain, replayed))


@pytest.mark.parametrize("kind", ["bf16-mixed", "bf16-true", "16-mixed"])
def test_replays_equal_plain_steps_in_half_precision(kind, batches, tmp_path, monkeypatch):
    stand_in(monkeypatch, "cpu")
    plain = train(Plainly, batches, "adam", kind=kind)
    replayed = train(EmulatedGraph, batches, "adam", kind=kind, resume_in=tmp_path)
    assert EmulatedGraph.replays == EPOCHS * (STEPS - cuda_graph.WARM_UP)
    assert all(map(torch.equal, plain, replayed))


@pytest.mark.parametrize("mutant", [unnoticed_float_rate, host_rate, no_warm_up, autocast_cache])
def test_the_emulator_sees(mutant, batches, tmp_path, monkeypatch):
    stand_in(monkeypatch, "cpu")
    kind = "bf16-mixed" if mutant is autocast_cache else "32-true"
    plain = train(Plainly, batches, "sgd_momentum", kind=kind)
    mutant(monkeypatch)
    replayed = train(EmulatedGraph, batches, "sgd_momentum", kind=kind, resume_in=tmp_path)
    assert max(float((a - b).abs().max()) for a, b in zip(plain, replayed, strict=True)) > 1e-4  # no rounding


def test_the_emulator_sees_that_a_float_rate_leaves_nothing_to_replay(batches, monkeypatch):
    stand_in(monkeypatch, "cpu")
    float_rate(monkeypatch)
    train(EmulatedGraph, batches, "sgd_momentum")
    assert EmulatedGraph.replays == 0
