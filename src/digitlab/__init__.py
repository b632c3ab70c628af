"""digitlab: which differences between image classifiers are real?"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digitlab.platform.environment import FIXED

if TYPE_CHECKING:
    from digitlab.training.api import TrainedRun

os.environ.update(FIXED)  # read when mlflow is imported, whoever imports it first

_ABOVE = Path(__file__).resolve().parents[2]
IS_CHECKOUT = (_ABOVE / "conf" / "train.yaml").is_file()
# Where data/, mlruns/ and reports/ lie: this checkout; for an installed digitlab the folder it was started in.
REPOSITORY = _ABOVE if IS_CHECKOUT else Path.cwd()
CONF = _ABOVE / "conf" if IS_CHECKOUT else Path(__file__).with_name("conf")
SOURCES = (REPOSITORY / "src", Path())  # where a user's own modules lie: src/ and the current folder


def train(*overrides: str, config_dir: str | Path | None = None, **keys: Any) -> "TrainedRun":
    """Train what `digitlab train` would, and return the run: digitlab.train("model=mlp", "data=mnist5k", seed=7)

    `keys` are overrides as keywords, one with a dot in it as **{"optim.lr": 0.01}. `config_dir` is a folder of the
    user's own files of configuration, as --config-dir names it. A run that is done already is returned as it is.
    Raises digitlab.config.errors.UserError for a mistake, before anything is recorded.
    """
    from digitlab.platform.environment import shielded
    from digitlab.platform.startup import fast_imports

    with shielded():
        with fast_imports():
            from digitlab.training.api import train
        return train(*overrides, config_dir=config_dir, **keys)
