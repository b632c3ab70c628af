"""Binary cross-entropy of softmax outputs, each class for itself."""

import torch.nn.functional as F
from torch import Tensor, nn


class SoftmaxBinaryLoss(nn.Module):
    """Compute the binary cross-entropy of the softmax of logits (B, C), mean over B and C, for labels (B,).

    As torch.nn.BCELoss has it, logarithms are at least -100. Source: gchhablani/CNN-with-FashionMNIST.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        wanted = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        return F.binary_cross_entropy(logits.float().softmax(1), wanted.float())
