"""A model of images that are not square goes through every command."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tracked import command


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:FutureWarning")
def test_wide_images_are_evaluated_predicted_and_exported(harness, tmp_path, capsys, monkeypatch):
    labels = np.arange(120) % 3
    pixels = np.random.default_rng(0).integers(0, 60, (120, 20, 40), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[:, 12 * label : 12 * label + 12] += 150
    np.savez(tmp_path / "wide.npz", x=pixels, y=labels)
    harness.train("model=cnn_simple", "data=arrays", f"data.file={tmp_path / 'wide.npz'}", "data.batch_size=8",
                  "optim=adam", "data.augment.rotate=5", "trainer.max_epochs=6")  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert command(harness, "evaluate", "latest", "--corrupt") is None
    assert command(harness, "export", "latest", "--format", "torchscript", "--output", "wide.pt") is None
    files = []
    for label in range(3):
        files.append(f"{label}.png")
        Image.fromarray(pixels[label]).resize((80, 40), Image.Resampling.NEAREST).save(files[-1])
    capsys.readouterr()
    assert command(harness, "predict", *files, "--run", "latest", "--format", "jsonl") is None
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["found"][0]["class"] for each in answers] == ["0", "1", "2"]
    found = torch.jit.load("wide.pt")(torch.from_numpy(pixels[:3])).argmax(1)
    assert found.tolist() == [0, 1, 2]
