"""Train one network with one optimizer: python src/train.py model=cnn_pool optim=adadelta"""

from digitlab.platform.environment import shielded
from digitlab.platform.signals import exit_at_once_on_signals

if __name__ == "__main__":
    exit_at_once_on_signals()  # first, for OmegaConf makes another error of a Ctrl-C while it loads
    with shielded():
        from digitlab.apps import start

        start("train")
