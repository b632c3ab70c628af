"""Fast layers against PyTorch's own: the same values, the same distribution, the same gradients."""

import pytest
import torch
from scipy.stats import binom, chi2
from torch import nn

from digitlab.models.blocks import activate, block, make
from digitlab.models.layers import Flatten, ReluDropout

LAYOUTS = {
    "plain": lambda: torch.rand(64, 16, 13, 13) + 0.1,
    "channels_last": lambda: (torch.rand(64, 16, 13, 13) + 0.1).contiguous(memory_format=torch.channels_last),
    "flat": lambda: torch.rand(500, 333) + 0.1,
    "cut out": lambda: (torch.rand(64, 16, 15, 15) + 0.1)[:, :, 1:-1, :-2],
    "bf16": lambda: (torch.rand(64, 16, 13, 13) + 0.1).bfloat16().contiguous(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("p", [0.2, 0.25, 0.5, 0.9])
def test_values_are_dropped_with_probability_p_and_the_others_scaled(layout, p):
    torch.manual_seed(0)
    values = LAYOUTS[layout]()
    output = ReluDropout(p)(values)
    kept = output != 0
    low, high = binom.interval(1 - 1e-6, values.numel(), 1 - p)
    assert low <= int(kept.sum()) <= high
    torch.testing.assert_close(output[kept], (values / (1 - p))[kept], rtol=1e-2 if layout == "bf16" else 1e-4, atol=0)


def test_positions_are_independent():
    torch.manual_seed(0)
    dropped = (ReluDropout(0.2)(torch.ones(4000, 24)) == 0).double()
    # Under independence the scaled correlations of all pairs of positions are standard normal.
    pairs = torch.corrcoef(dropped.T)[*torch.triu_indices(24, 24, 1)]
    assert chi2.cdf(float(4000 * pairs.square().sum()), len(pairs)) < 1 - 1e-6
    rows = torch.corrcoef(torch.stack([dropped.flatten()[:-1], dropped.flatten()[1:]]))[0, 1]
    assert abs(rows) < 5 / dropped.numel() ** 0.5


def test_the_gradient_matches_pytorchs_layers_with_the_same_mask():
    torch.manual_seed(0)
    values = torch.randn(32, 8, 6, 6, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(values)
    output = ReluDropout(0.25)(values)
    (ours,) = torch.autograd.grad(output, values, upstream)
    mask = (output != 0).double() / 0.75  # where ReLU is 0 the mask does not matter
    expected = torch.relu(values) * mask
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, values, upstream)[0])


def test_nan_is_kept():
    assert ReluDropout(0.5)(torch.full((100,), torch.nan)).isnan().any()


def test_the_mask_depends_on_torchs_generator():
    torch.manual_seed(7)
    first, second = (ReluDropout(0.2)(torch.ones(1000)) for _ in range(2))
    torch.manual_seed(7)
    assert torch.equal(ReluDropout(0.2)(torch.ones(1000)), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_of_nothing_or_everything(p):
    values = torch.randn(100)
    torch.testing.assert_close(ReluDropout(p)(values), nn.Dropout(p)(values.relu()))


def test_evaluation_is_plain_relu():
    values = torch.randn(100)
    assert torch.equal(ReluDropout(0.5).eval()(values), values.relu())


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_bad_probability_is_refused(p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        ReluDropout(p)


def test_flatten_does_not_copy_channels_last():
    images = torch.rand(3, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    flat = Flatten()(images)
    assert flat.data_ptr() == images.data_ptr()
    torch.testing.assert_close(flat, images.permute(0, 2, 3, 1).reshape(3, -1))


def test_spatial_dropout_drops_whole_channels_of_what_a_block_gives():
    torch.manual_seed(0)
    made = make(block, 2, {"channels": 6, "padding": 1, "pool": 2, "spatial_dropout": 0.5})
    images = torch.rand(50, 2, 8, 8)
    given, kept = made(images), made.eval()(images)
    is_dropped = (given == 0).all((2, 3))
    torch.testing.assert_close(given, kept * 2 * ~is_dropped[:, :, None, None])
    assert 0.35 < (is_dropped & (kept > 0).any(3).any(2)).float().mean() < 0.65


def test_softmax_of_logsigmoids_divides_sigmoids_by_their_sum():
    values = torch.randn(4, 7)
    sigmoids = 1 / (1 + torch.exp(-values))
    torch.testing.assert_close(activate("logsigmoid")(values).softmax(1), sigmoids / sigmoids.sum(1, keepdim=True))
