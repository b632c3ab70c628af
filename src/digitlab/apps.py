"""The applications that Hydra starts, with its grammar of KEY=VALUE: a run or a sweep, and a report."""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from digitlab import CONF, SOURCES
from digitlab.config import compose  # noqa: F401  for what it adds to the grammar of the files in conf/
from digitlab.config.allowed import hand_on, take_allowed
from digitlab.config.arguments import (
    HYDRA_KEYS,
    REPORTS_HYDRA_KEYS,
    check_arguments,
    check_slips,
    show_help,
    understood,
    without_password,
)
from digitlab.config.check import check, check_process, check_single_run
from digitlab.config.errors import job_errors, one_line_errors
from digitlab.config.hydra_internals import check_flags
from digitlab.config.names import record
from digitlab.platform.environment import shielded, started
from digitlab.platform.secrets import mask_screen
from digitlab.platform.signals import nothing_continues, stay_until_killed
from digitlab.platform.startup import fast_exit, fast_imports


def start(app: str) -> None:
    """Start "train" or "report" with the program's arguments, and end the process."""
    sys.path += [str(folder) if folder.is_absolute() else "" for folder in SOURCES]
    function, is_report = {"train": train, "report": report}[app], app == "report"
    mask_screen()
    with one_line_errors():
        show_help(app, sys.argv[1:])
        sys.argv[1:] = check_flags(take_allowed(sys.argv[1:]), is_one=is_report)
        if is_report:
            nothing_continues()
        check_slips(sys.argv[1:], is_one=is_report)
        check_arguments(sys.argv[1:], REPORTS_HYDRA_KEYS if is_report else HYDRA_KEYS)
        sys.argv[1:] = understood(without_password(sys.argv[1:]))
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=app)(hand_on(function))()
        fast_exit()


def train(cfg: DictConfig) -> float:
    """Do one run, or this process's part of it."""
    mask_screen()
    with stay_until_killed(), shielded(), job_errors(cfg):  # a worker of a cluster has an environment of its own
        record(cfg, HydraConfig.get())
        check(cfg)  # a slip of the hand is known at once, before torch takes its seconds to load
        check_process(cfg)
        check_single_run(cfg)
        if (found := started()) and found.rank:
            with fast_imports():
                from digitlab.training.follow import follow
            return follow(cfg)
        with fast_imports():
            from digitlab.training.run import train
        if not cfg.vs:
            return train(cfg)
        from digitlab.report.beside import compared

        with compared(cfg):
            return train(cfg)


def report(cfg: DictConfig) -> None:
    """Write one report."""
    with one_line_errors():  # before Hydra adds a line of its own
        with fast_imports():
            from digitlab.report.report import report
        report(cfg)
