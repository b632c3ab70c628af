"""A logged model that gives no probabilities, or not of every number of images, is one line in every command."""

import pytest
from PIL import Image
from tracked import TINY, command

OWN = ("model._target_=users_networks.Batched", "~model.blocks", "~model.hidden", "~model.dropout", "~model.init")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_command_uses_it(harness, monkeypatch, tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "one.png")
    commands = (
        ("evaluate", "latest"),
        ("predict", str(tmp_path / "one.png"), "--run", "latest"),
        ("export", "latest", "--format", "pt2", "--output", str(tmp_path / "model.pt2")),
        ("serve", "latest", "--port", "0"),
    )
    harness.train(*TINY, "optim=sgd", "optim.lr=1e30")
    for each in commands:
        assert str(command(harness, *each)).endswith(": gives no probabilities, for the run diverged")
    monkeypatch.setattr("digitlab.config.build.PACKAGES", ("digitlab", "torch", "pytorch_lightning", "users_networks"))
    for place in ("run", "record"):  # as before digitlab asked
        monkeypatch.setattr(f"digitlab.training.{place}.why_not_exported", lambda *_: "")
    harness.train(*TINY[1:2], *TINY[3:], "model=mlp", *OWN)
    for each in commands:
        assert ": torch.export fixed how many images it takes, and 1 is" in str(command(harness, *each))
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["one.png"]
