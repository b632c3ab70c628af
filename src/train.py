"""Train one network with one optimizer: python src/train.py model=cnn_pool optim=adadelta"""

import sys

from digitlab.platform.signals import exit_at_once_on_signals

if __name__ == "__main__":
    exit_at_once_on_signals()  # first, for OmegaConf makes another error of a Ctrl-C while it loads

import hydra
from omegaconf import DictConfig

from digitlab.config.arguments import check_arguments
from digitlab.config.errors import job_errors, one_line_errors
from digitlab.config.schema import check
from digitlab.platform.startup import fast_exit, fast_imports


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float:
    with job_errors(cfg):
        check(cfg)  # a slip of the hand is known at once, before torch takes its seconds to load
        with fast_imports():
            from digitlab.training.run import train
        return train(cfg)


if __name__ == "__main__":
    with one_line_errors():
        check_arguments(sys.argv[1:])
        main()
        fast_exit()
