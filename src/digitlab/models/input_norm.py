"""A network that begins with batch normalization of its images."""

from typing import Any

from torch import Tensor, nn

from digitlab.models.networks import ConvNet

AXES = {"channels": 1, "columns": 3}  # of (N, C, H, W)


class InputNormNet(nn.Module):
    """Normalize images by the statistics of their batch, then classify them by a ConvNet, whose keywords it takes.

    `axis` says what has a mean and a spread of its own: channels, or the columns of an image, as Keras's layer has it
    where it takes images with channels first for such with channels last. `eps` and `momentum` are torch's, their
    defaults Keras's. Raises ValueError for another axis.
    """

    def __init__(
        self,
        axis: str = "channels",
        eps: float = 1e-3,
        momentum: float = 0.01,
        num_classes: int = 10,
        input_shape: tuple[int, int, int] = (1, 28, 28),
        **network: Any,
    ):
        super().__init__()
        if axis not in AXES:
            raise ValueError(f"axis={axis}: must be {' or '.join(AXES)}")
        self.axis = AXES[axis]
        self.norm = nn.BatchNorm2d(input_shape[self.axis - 1], eps, momentum)
        self.network = ConvNet(**network, num_classes=num_classes, input_shape=input_shape)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.norm(images.transpose(1, self.axis)).transpose(1, self.axis))
