"""Say which differences between a sweep's runs are real: python src/report.py report.sweep=grid"""

import sys

import hydra
from omegaconf import DictConfig

from digitlab.config.arguments import quoted
from digitlab.config.errors import one_line_errors
from digitlab.platform.startup import fast_exit, fast_imports


@hydra.main(version_base="1.3", config_path="../conf", config_name="report")
def main(cfg: DictConfig) -> None:
    with one_line_errors():  # before Hydra adds a line of its own
        with fast_imports():
            from digitlab.report.report import report
        report(cfg)


if __name__ == "__main__":
    sys.argv[1:] = [quoted(argument, "report.filter") for argument in sys.argv[1:]]
    with one_line_errors():
        main()
        fast_exit()
