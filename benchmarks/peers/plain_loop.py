"""The plain PyTorch example: torchvision's DataLoader, batch 64, Adadelta lr 1.0; prints the seconds of each epoch.

python plain_loop.py ROOT EPOCHS
"""

import sys
import time

import torch
import torch.nn.functional as F
from torch import nn, optim
from torchvision import datasets, transforms


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, 1), nn.Conv2d(32, 64, 3, 1)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = torch.flatten(self.dropout1(F.max_pool2d(x, 2)), 1)
        return F.log_softmax(self.fc2(self.dropout2(F.relu(self.fc1(x)))), dim=1)


root, epochs = sys.argv[1:]
transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
loader = torch.utils.data.DataLoader(datasets.MNIST(root, transform=transform), batch_size=64, shuffle=True)
model = Net()
optimizer = optim.Adadelta(model.parameters(), lr=1.0)
for epoch in range(int(epochs)):
    start = time.perf_counter()
    model.train()
    for batch, (data, target) in enumerate(loader):
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        if batch % 10 == 0:
            print(f"Train Epoch: {epoch} [{batch * len(data)}/{len(loader.dataset)}] Loss: {loss.item():.6f}")
    print(f"epoch_s {time.perf_counter() - start:.4f}", flush=True)
