"""Train one network with one optimizer: python src/train.py model=cnn_pool optim=adadelta"""

import sys

from digitlab.signals import exit_at_once_on_signals

if __name__ == "__main__":
    exit_at_once_on_signals()  # first, for OmegaConf makes another error of a Ctrl-C while it loads

import hydra
from omegaconf import DictConfig

from digitlab.config import check, check_arguments, job_errors, one_line_errors
from digitlab.loading import leave, quickly


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float:
    with job_errors(cfg):
        check(cfg)  # a slip of the hand is known at once, before torch takes its seconds to load
        with quickly():
            from digitlab.training import train
        return train(cfg)


if __name__ == "__main__":
    with one_line_errors():
        check_arguments(sys.argv[1:])
        main()
        leave()
