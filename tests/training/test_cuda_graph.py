"""Which calls of a step are replays, and which optimizers can be captured; on the CPU, in a graph's place."""

import pytest
import torch
from graph_emulator import EmulatedGraph
from torch import Tensor

from digitlab.training import cuda_graph
from digitlab.training.cuda_graph import make_capturable


def optimizer(kind=torch.optim.SGD, **settings) -> torch.optim.Optimizer:
    return kind([torch.nn.Parameter(torch.ones(3))], **{"lr": 0.1} | settings)


class Step:
    """Count how often Python runs a step; a replay runs none."""

    def __init__(self):
        self.plain = 0

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self.plain += 1
        return images.sum() + labels.sum()


@pytest.fixture
def graph(monkeypatch) -> EmulatedGraph:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return EmulatedGraph(Step(), optimizer())


def call(graph: EmulatedGraph, size: int, value: float = 1.0) -> bool:
    """Call it with batches of a size; check what it returns and say whether it was a replay."""
    before = graph.step.plain
    assert graph(torch.full((size,), value), torch.full((size,), 2.0)) == size * (value + 2)
    return graph.step.plain == before


def test_a_shape_is_replayed_after_three_plain_steps_and_its_capture(graph):
    assert [call(graph, 4, value) for value in range(7)] == [False] * 4 + [True] * 3


def test_the_rest_that_ends_an_epoch_runs_plainly_and_is_never_captured(graph):
    epoch = [call(graph, size) for _ in range(6) for size in (4, 4, 4, 4, 4, 1)]
    assert epoch == [False] * 4 + [True, False] + 5 * ([True] * 5 + [False])
    assert len(graph.captured) == 1


def test_two_shapes_have_a_graph_each(graph):
    for size in (4, 5):
        assert [call(graph, size) for _ in range(5)] == [False] * 4 + [True]
    assert all(call(graph, size) for size in (4, 5, 4, 5))


def test_one_shape_of_another_type_is_not_the_same(graph):
    for _ in range(5):
        call(graph, 2)
    assert graph(torch.full((2,), 3), torch.full((2,), 2)).dtype == torch.int64


@pytest.mark.parametrize(("key", "value"), [("lr", 0.2), ("momentum", 0.5)])
def test_a_number_of_the_optimizer_that_changes_is_captured_anew(graph, key, value):
    assert [call(graph, 4) for _ in range(5)][-1]
    graph.optimizer.param_groups[0][key] = value
    assert [call(graph, 4) for _ in range(5)] == [False] * 4 + [True]
    graph.optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    [call(graph, 4) for _ in range(5)]
    graph.optimizer.param_groups[0]["lr"].fill_(0.3)
    assert call(graph, 4)


def test_what_is_closed_holds_nothing_and_can_be_called_again(graph):
    for _ in range(2):
        assert [call(graph, 4) for _ in range(5)] == [False] * 4 + [True]
        graph.close()
        assert not graph.captured
    graph.close()


@pytest.mark.parametrize("moves", [True, False])
def test_a_learning_rate_that_moves_is_a_tensor_and_another_number_stays(moves, monkeypatch):
    monkeypatch.setattr(cuda_graph, "DEVICE", "cpu")
    adam = optimizer(torch.optim.Adam)
    assert make_capturable(adam, moves)
    (group,) = adam.param_groups
    assert group["capturable"]
    assert isinstance(group["lr"], Tensor) == moves
    assert float(group["lr"]) == pytest.approx(0.1)


def test_every_tensor_of_a_resumed_optimizer_is_on_the_weights_device(monkeypatch):
    monkeypatch.setattr(cuda_graph, "DEVICE", "meta")
    weight = torch.nn.Parameter(torch.empty(3, device="meta"))
    adam = torch.optim.Adam([weight], lr=torch.tensor(0.1), weight_decay=torch.tensor(0.5))
    adam.state[weight] = {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    assert make_capturable(adam, moves=False)
    tensors = [value for each in (adam.param_groups[0], adam.state[weight]) for value in each.values()]
    assert {value.device.type for value in tensors if isinstance(value, Tensor)} == {"meta"}


@pytest.mark.parametrize(
    ("kind", "words"),
    [(torch.optim.SGD, "SGD cannot .*; optim.fused=true"), (torch.optim.Adafactor, "Adafactor cannot")],
)
def test_an_optimizer_that_cannot_be_captured_is_said_so(kind, words, monkeypatch):
    monkeypatch.setattr(cuda_graph, "DEVICE", "cpu")
    with pytest.warns(UserWarning, match=words):
        assert not make_capturable(optimizer(kind), moves=False)


def test_nothing_is_said_or_changed_without_a_gpu():
    (group,) = (adam := optimizer(torch.optim.Adam)).param_groups
    before = dict(group)
    assert not make_capturable(adam, moves=True)
    assert group == before
