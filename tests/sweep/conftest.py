"""What tests of sweeps share."""

import pytest
from made import Made

from digitlab.training import run as training_run


@pytest.fixture
def made(monkeypatch) -> Made:
    made = Made()
    monkeypatch.setattr(training_run, "train", lambda cfg: made.train(cfg))
    return made
