"""Train on a folder of 50,000 colour JPEGs: time of an epoch and memory, beside torchvision's ImageFolder.

    PYTHONPATH=src .venv/bin/python benchmarks/folder.py --images 50000

Each side is a process of its own, and they run in turn. An epoch makes every batch of the training images as float32,
in a new order, and trains nothing: it is what data cost. The images are in a temporary folder, which is deleted.
"""

import argparse
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

SIZE, CLASSES, BATCH = 64, 10, 128


def write(job: tuple[Path, int, int]) -> None:
    """Write the images of a class, each a smooth draw, which JPEG compresses as it does photographs."""
    from PIL import Image

    folder, label, count = job
    folder.mkdir(parents=True)
    drawn = np.random.default_rng(label)
    for number in range(count):
        coarse = Image.fromarray(drawn.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(folder / f"{number:05}.jpg", quality=90)


def ours(root: Path, epochs: int) -> dict[str, list[float]]:
    """Return the seconds until the first batch and of each epoch, where the decoded file is under `root`'s parent."""
    from digitlab.data import decoded
    from digitlab.data.datamodule import ImageData
    from digitlab.data.folders import image_folder

    decoded.FOLDER = root.parent / "decoded"
    begin = time.perf_counter()
    data = ImageData(image_folder, root=str(root), batch_size=BATCH)
    data.setup()
    loader = data.train_dataloader()
    return {"ready": [time.perf_counter() - begin], "epochs": [_epoch(loader) for _ in range(epochs)]}


def theirs(root: Path, epochs: int, workers: int = 2) -> dict[str, list[float]]:
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    begin = time.perf_counter()
    folder = ImageFolder(str(root), ToTensor())
    rows = torch.randperm(len(folder))[: round(0.8 * len(folder))].tolist()  # as many as ours, which split off a fifth
    loader = DataLoader(
        Subset(folder, rows), BATCH, shuffle=True, num_workers=workers, persistent_workers=True, prefetch_factor=4
    )
    return {"ready": [time.perf_counter() - begin], "epochs": [_epoch(loader) for _ in range(epochs)]}


def _epoch(loader) -> float:
    begin, total, images = time.perf_counter(), 0.0, 0
    for batch, labels in loader:
        total += float(batch[0, 0, 0, 0])
        images += len(labels)
    assert images
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=("ours", "theirs"))
    parser.add_argument("--root", type=Path)
    asked = parser.parse_args()
    if asked.side:
        found = {"ours": ours, "theirs": theirs}[asked.side](asked.root, asked.epochs)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(json.dumps(found | {"GiB": [round(peak, 2)], "largest worker, GiB": [round(children, 2)]}))
        return
    place = Path(tempfile.mkdtemp(prefix="digitlab-folder-"))
    try:
        jobs = [(place / "images" / f"class{label}", label, asked.images // CLASSES) for label in range(CLASSES)]
        with ProcessPoolExecutor(2) as pool:
            list(pool.map(write, jobs))
        print(
            f"{platform.processor() or platform.machine()}, {asked.images} images, python {platform.python_version()}"
        )
        for number in range(asked.rounds):
            for side in ("ours", "theirs"):
                told = ["--side", side, "--root", str(place / "images"), "--epochs", str(asked.epochs)]
                done = subprocess.run([sys.executable, __file__, *told], capture_output=True, text=True, check=True)
                print(number, side, done.stdout.splitlines()[-1], flush=True)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
