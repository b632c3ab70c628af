"""A network with its preprocessing and softmax: the model that is logged, exported and served."""

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram


class Predictor(nn.Module):
    """Predict class probabilities (N, num_classes) from stored images, uint8 (N, H, W) or (N, H, W, C)."""

    def __init__(self, preprocess: nn.Module, network: nn.Module):
        super().__init__()
        self.preprocess, self.network = preprocess, network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.preprocess(images)).softmax(1)


def export_program(predictor: nn.Module, images: Tensor) -> ExportedProgram:
    """Export `predictor` as MLflow does, for any number of images; of `images` it takes two, for one stays one."""
    return torch.export.export(predictor, (_some(images, 2),), dynamic_shapes=[{0: Dim.AUTO}])


def check_numbers(exported: nn.Module, images: Tensor) -> None:
    """Raise ValueError where `exported` does not take one and three of `images`: torch fixes their number silently."""
    for count in (1, 3):
        try:
            exported(_some(images, count))
        except Exception as error:  # of whatever kind
            raise ValueError(
                f"torch.export fixed how many images it takes, and {count} is refused: forward must say "
                "images.shape[0], not len(images), nor make an int of it"
            ) from error


def _some(images: Tensor, count: int) -> Tensor:
    return images[torch.arange(count) % len(images)]
