"""Say which differences between a sweep's runs are real: python src/report.py report.sweep=grid"""

import sys

import hydra
from omegaconf import DictConfig

from digitlab.config import one_line_errors, quoted
from digitlab.loading import leave, quickly


@hydra.main(version_base="1.3", config_path="../conf", config_name="report")
def main(cfg: DictConfig) -> None:
    with one_line_errors():  # before Hydra adds a line of its own
        with quickly():
            from digitlab.report import report
        report(cfg)


if __name__ == "__main__":
    sys.argv[1:] = [quoted(argument, "report.filter") for argument in sys.argv[1:]]
    with one_line_errors():
        main()
        leave()
