"""A network with its preprocessing and softmax: the model that is logged, exported and served."""

from torch import Tensor, nn


class Predictor(nn.Module):
    """Predict class probabilities (N, num_classes) from stored images, uint8 (N, H, W) or (N, H, W, C)."""

    def __init__(self, preprocess: nn.Module, network: nn.Module):
        super().__init__()
        self.preprocess, self.network = preprocess, network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.preprocess(images)).softmax(1)
