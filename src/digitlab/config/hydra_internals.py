"""Every use of Hydra's private parts; tests/hostile/test_foreign_configs.py fails when they change.

Hydra builds callbacks and loggers of its own node before any code of ours runs. That node is written by conf/ and, as
far as config/arguments.py lets it, by the command line; a file from elsewhere may name a launcher and cells, no more.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import get_args_parser
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from digitlab import CONF
from digitlab.config.errors import UserError, one_line
from digitlab.config.files import check_file
from digitlab.config.leaves import as_text, is_within
from digitlab.platform.text import shorten

OPEN = ("mode", "sweeper.params", "sweeper.per_optim", "sweeper.max_batch_size")  # of Hydra's node, to any file
BOOKKEEPING = ("overrides", "runtime", "job.override_dirname", "searchpath")  # the last one: by --config-dir
RUNS_CODE = (
    "setup",
    "python",
    "srun_args",
    "additional_parameters",
    "address",
)  # of a launcher's keys: what it runs, and where
DEEDS = ("run", "multirun", "cfg", "info", "shell_completion")  # of which Hydra does one
COMPLETIONS = ("install=", "uninstall=", "query=")
REFUSED_FLAGS = {
    "experimental_rerun": "would run what is pickled in the file",
    "config_path": "would leave conf/ out; --config-dir=FOLDER adds a folder of your own files",
    "config_name": "is conf/train.yaml; --config-dir=FOLDER adds choices of your own for its groups",
}


def check_flags(arguments: Sequence[str], is_one: bool = False) -> list[str]:
    """Return `arguments` with Hydra's flags first: it takes no KEY=VALUE after a flag that follows another one.

    Args:
        arguments: The words after the program's name.
        is_one: Whether the program does one job at a time, as a report is.

    Raises UserError for a flag of Hydra's, in whatever spelling, that is not for use here, and for an unknown one.
    """
    parser = get_args_parser()
    parser.error = _refuse_flag  # pyright: ignore[reportAttributeAccessIssue]  instead of a page on all flags
    flags, rest = parser.parse_known_args(list(arguments))
    unknown = [each for each in rest if each.startswith("-")]
    if unknown:
        _refuse_flag(f"{unknown[0]}: unknown flag")
    for name, reason in REFUSED_FLAGS.items():
        if getattr(flags, name) is not None:
            raise UserError(f"--{name.replace('_', '-')}: not to be used here: it {reason}")
    if flags.resolve and not (flags.cfg or flags.help):
        raise UserError("--resolve: says how --cfg shows a configuration; give it with --cfg=job")
    deeds = [f"--{name.replace('_', '-')}" for name in DEEDS if getattr(flags, name)]
    if len(deeds) > 1:
        raise UserError(f"{' '.join(deeds)}: each asks for something else; give one of them")
    asked = [each for each in (*flags.overrides, *rest) if each.startswith(COMPLETIONS)]
    is_answerable = "COMP_LINE" in os.environ or not (asked and asked[0].startswith("query="))
    if flags.shell_completion and not (len(asked) == 1 and is_answerable):
        raise UserError("--shell-completion: needs install=SHELL or uninstall=SHELL; query=SHELL is for shells")
    if flags.multirun and is_one:
        raise UserError("--multirun: is for runs; reports are written one at a time, of report.sweep=NAME")
    overrides = [*flags.overrides, *rest]
    for word in overrides:
        if re.fullmatch(r"[\w./]+", word):
            raise UserError(f"{word}: must be KEY=VALUE; --help says every key")
    return [*(each for each in arguments if each not in overrides), *overrides]


def _refuse_flag(message: str) -> NoReturn:
    known = [max(action.option_strings, key=len) for action in get_args_parser()._actions if action.option_strings]
    allowed = [name for name in known if name[2:].replace("-", "_") not in REFUSED_FLAGS]
    raise UserError(f"{message.removeprefix('argument ')}; allowed: {', '.join(allowed)}, KEY=VALUE")


def users_folder(arguments: Sequence[str]) -> Path | None:
    """Return the folder that --config-dir names."""
    flags, _ = get_args_parser().parse_known_args(list(arguments))
    return Path(flags.config_dir) if flags.config_dir else None


class ClosedLoader(ConfigLoaderImpl):
    """Hydra's composition of a configuration, but its own node is closed to files that are not in conf/."""

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        how = {"from_shell": from_shell, "validate_sweep_overrides": validate_sweep_overrides}
        _check_files()
        with _one_kind_of_error():
            cfg = super().load_configuration(config_name, overrides, run_mode, **how)
        for group, choice in cfg.hydra.runtime.choices.items():
            if ".." in str(choice):
                raise UserError(f"{group}={choice}: must name a file of conf/{group} or of the folder of --config-dir")
        if any(_is_foreign(source.provider) for source in cfg.hydra.runtime.config_sources):
            typed = [each for each in overrides if re.match(r"[+~]*hydra[./](?!searchpath)", each)]
            if not any(each.startswith("hydra/launcher=") for each in typed):
                typed.append(f"hydra/launcher={cfg.hydra.runtime.choices['hydra/launcher']}")
            own = ConfigLoaderImpl(_without_foreign(self.config_search_path))
            _compare(cfg, own.load_configuration(config_name, typed, run_mode, **how))
        return cfg

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        with _one_kind_of_error():
            return super().load_sweep_config(master_config, sweep_overrides)


def _check_files() -> None:
    """Have Hydra check each YAML file from elsewhere before it reads it."""
    source: Any = SourcesRegistry.instance().resolve("file")  # of Hydra's own import of its plugins
    if source.load_config.__name__ == "load_config":
        load = source.load_config

        def load_checked(self: Any, config_path: str) -> Any:
            file = Path(self.path, self._normalize_file_name(config_path))
            if file.is_file() and not file.is_relative_to(CONF):
                check_file(file)
            return load(self, config_path)

        source.load_config = load_checked


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """Turn what Hydra raises for a mistake without calling it one, such as "got NoneType", into its error."""
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException, OSError):
        raise
    except Exception as error:
        raise ConfigCompositionException(one_line(error)) from error


def _is_foreign(provider: str) -> bool:
    return provider == "command-line" or provider.startswith("hydra.searchpath")


def _without_foreign(search_path: Any) -> Any:
    own = type(search_path)()
    own.config_search_path = [each for each in search_path.get_path() if not _is_foreign(each.provider)]
    return own


def _compare(cfg: DictConfig, own: DictConfig) -> None:
    """Raise UserError for the first key of Hydra's node that a foreign file has changed and may not."""
    found, ours = _leaves(cfg), _leaves(own)
    for key in sorted(found.keys() | ours.keys()):
        value = found.get(key)
        is_open = is_within(key, (*OPEN, *BOOKKEEPING)) or (is_within(key, ["launcher"]) and _is_plain(key, value))
        if not is_open and value != ours.get(key):
            allowed = ", ".join(f"hydra.{name}" for name in OPEN)
            text = shorten(as_text(value))
            raise UserError(
                f"hydra.{key}={text}: not to be changed by a file; allowed of Hydra's: {allowed}, hydra.launcher"
            )


def _is_plain(key: str, value: Any) -> bool:
    """Say whether a launcher's key is a number or a word that no shell reads."""
    name = key.partition(".")[2]
    is_word = value is None or isinstance(value, bool | int | float) or re.fullmatch(r"[\w.,:/@%+-]*", str(value))
    return bool(is_word) and re.match(r"[a-z]", name) is not None and not is_within(name, RUNS_CODE)


def _leaves(cfg: DictConfig) -> dict[str, Any]:
    leaves: dict[str, Any] = {}

    def visit(node: Any, key: str) -> None:
        if isinstance(node, dict) and node:
            for name, value in node.items():
                visit(value, f"{key}.{name}" if key else str(name))
        else:
            leaves[key] = node

    visit(OmegaConf.to_container(cfg.hydra), "")
    return leaves


hydra.ConfigLoaderImpl = ClosedLoader  # pyright: ignore[reportPrivateImportUsage]
