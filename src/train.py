"""Train one network with one optimizer: python src/train.py model=cnn_pool optim=adadelta"""

import hydra
from omegaconf import DictConfig

from digitlab.config import job_errors, one_line_errors


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float:
    with job_errors(cfg):
        from digitlab.training import train  # torch loads only for a run, not for --help or --cfg job

        return train(cfg)


if __name__ == "__main__":
    with one_line_errors():
        main()
