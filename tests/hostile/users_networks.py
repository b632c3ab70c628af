"""Networks that people write: most cannot be trained, exported, or called with a batch of one."""

import torch
from torch import nn


class Plain(nn.Module):
    """A network that works; the others change its output."""

    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), nn.ReLU(), nn.Linear(16, num_classes))

    def forward(self, images):
        return self.layers(images)


class Tuple(Plain):
    def forward(self, images):
        return self.layers(images), images


class TooFewOutputs(nn.Sequential):
    def __init__(self, num_classes, input_shape):
        super().__init__(nn.Flatten(), nn.Linear(784, 5))


class Flat(Plain):
    def forward(self, images):
        return self.layers(images).flatten()


class Classes(Plain):
    def forward(self, images):
        return self.layers(images).argmax(1, keepdim=True).expand(-1, 10)


class Double(Plain):
    def __init__(self, **keys):
        super().__init__(**keys)
        self.double()


class NoParameters(nn.Flatten):
    def __init__(self, num_classes, input_shape):
        super().__init__()


class Frozen(Plain):
    def __init__(self, **keys):
        super().__init__(**keys)
        self.requires_grad_(False)


class Detached(Plain):
    def forward(self, images):
        return self.layers(images).detach()


class NotANumber(Plain):
    def forward(self, images):
        return self.layers(images) * float("nan")


class DropsAll(Plain):
    def __init__(self, **keys):
        super().__init__(**keys)
        self.layers.insert(2, nn.Dropout(1.0))


class OneSize(Plain):
    """Fails at the smaller batch that ends an epoch."""

    def forward(self, images):
        return self.layers(images) if len(images) in (2, 100, 128) else self.layers(images)[:2]


class FailsInEvaluation(Plain):
    def forward(self, images):
        if not self.training:
            raise KeyError("never tried")
        return self.layers(images)


class SparseGradients(nn.Module):
    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.table = nn.EmbeddingBag(2, num_classes, sparse=True)

    def forward(self, images):
        return self.table((images.flatten(1) > 0).long())


class PartlyUnused(Plain):
    def __init__(self, **keys):
        super().__init__(**keys)
        self.spare = nn.Linear(3, 3)


class LooksAtValues(Plain):
    """Trains, and cannot be exported: what forward does depends on the values."""

    def forward(self, images):
        return self.layers(images * 2 if float(images.mean()) < -1e9 else images)


class LooksAtValuesOnceTrained(Plain):
    calls = 0

    def forward(self, images):
        self.calls += self.training
        return self.layers(images * 2 if self.calls > 3 and float(images.mean()) < -1e9 else images)


class Batched(Plain):
    """Asks for the size of its batch, in most ways so that torch.export takes it for a constant."""

    def __init__(self, num_classes, input_shape, way="view"):
        super().__init__(num_classes, input_shape)
        self.way, self.bias = way, nn.Parameter(torch.zeros(1, num_classes))

    def forward(self, images):
        if self.way == "view":
            return self.layers(images.view(len(images), -1))
        if self.way == "zeros":
            return self.layers(images) + torch.zeros(len(images), 1)
        if self.way == "expand":
            return self.layers(images) + self.bias.expand(len(images), -1)
        number = images.shape[0]
        return self.layers(images.reshape(int(number) if self.way == "int" else number, 784))


class BatchNormed(nn.Sequential):
    """Cannot train on a batch of one image."""

    def __init__(self, num_classes, input_shape):
        super().__init__(nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, num_classes))
        self.sizes: list[int] = []

    def forward(self, images):
        if self.training and torch.is_grad_enabled():
            SIZES.append(len(images))
        return super().forward(images)


class AtMost499(BatchNormed):
    def forward(self, images):
        if len(images) > 499:
            raise RuntimeError("at most 499 images")
        return super().forward(images)


SIZES: list[int] = []  # of the batches that a BatchNormed was trained with
