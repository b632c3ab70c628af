"""A network with what comes before and after it: what is logged, exported and served."""

from torch import Tensor, nn


class Predictor(nn.Module):
    """Turn images as they are stored, uint8 (N, H, W) or (N, H, W, C), into class probabilities (N, num_classes)."""

    def __init__(self, preprocess: nn.Module, network: nn.Module):
        super().__init__()
        self.preprocess, self.network = preprocess, network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.preprocess(images)).softmax(1)
