"""Let a network compute in bfloat16, while what it takes and gives stays float32."""

from torch import Tensor, nn


def compute_in_bfloat16(network: nn.Module) -> None:
    """Have `network` hold its weights and compute in bfloat16.

    Images come, and logits go, as float32: whoever calls it, in training, evaluation or export, does as with any other.
    """
    network.bfloat16()
    network.register_forward_pre_hook(_narrow)
    network.register_forward_hook(_widen)


def _narrow(network: nn.Module, images: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    kind = next(network.parameters()).dtype  # float32 once the network is prepared for other machines
    return tuple(each.to(kind) for each in images)


def _widen(network: nn.Module, images: tuple[Tensor, ...], logits: Tensor) -> Tensor:
    return logits.float() if isinstance(logits, Tensor) and logits.is_floating_point() else logits
