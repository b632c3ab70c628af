"""Write what the schema says: the page of --help, docs/reference.md, and the JSON schemas that editors read.

python -m digitlab.config.reference writes the files again.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from omegaconf import OmegaConf
from pydantic import BaseModel

from digitlab import CONF, IS_CHECKOUT, REPOSITORY
from digitlab.config.describe import Description
from digitlab.config.leaves import as_text
from digitlab.config.schema import RaySweep, ReportJob, Run

JOBS = {"train": Run, "report": ReportJob}
USAGE = {
    "train": """\
Train one network with one optimizer: {command} KEY=VALUE ...
-m KEY=A,B runs one for each, sweep=NAME those of a file; --cfg job shows the configuration only.
GROUP=CHOICE takes a file of {groups}.
Its values may be others than stand here. +KEY=VALUE adds what else the _target_ of a group takes.""",
    "report": """\
Say which differences between a sweep's runs are real: {command} KEY=VALUE ...
--cfg job shows the configuration only.""",
}
SECTIONS = {
    "": "The run",
    "model": "Networks",
    "optim": "Optimizers",
    "data": "Data",
    "scheduler": "Schedulers of the learning rate",
    "trainer": "Trainer",
    "sweep": "Sweeps",
    "hydra": "Sweeps on workers of Ray: `hydra/launcher=ray`",
    "claim": "Claims",
    "counterpart": "Counterparts: a claim, changed",
    "report": "Reports",
    "tracking": "Tracking",
}
WIDTH, INDENT = 100, 34  # of --help, in columns


class Key(NamedTuple):
    """What there is to say of a key."""

    name: str
    default: str
    allowed: str
    meaning: str

    @property
    def text(self) -> str:
        return self.meaning if self.allowed == "true or false" else f"{self.meaning} ({self.allowed})"


def help_page(job: str, command: str, folder: Path | None = None) -> str:
    """Return what a job says when `command` asks it for help; a user's `folder` adds its choices."""
    folders = [CONF, folder] if folder else [CONF]
    built_in = "conf/GROUP/" if IS_CHECKOUT else "the built-in ones"
    groups = f"{built_in} or of {folder}/GROUP/" if folder else f"{built_in}; --config-dir=DIR adds those of DIR/GROUP/"
    chosen, lines = _chosen(job), [USAGE[job].format(command=command, groups=groups)]
    for section, keys in _sections(job).items():
        choices = " ".join(_choices(section, folders)) if section in chosen else ""
        lines += ["", *([_item(f"{section}={chosen[section]}", f"one of {choices}")] if choices else [])]
        if section != "claim":  # a file says those
            lines += [_item(f"  {key.name}={key.default}", key.text) for key in keys]
    return "\n".join(lines)


def markdown() -> str:
    """Return docs/reference.md."""
    parts = [
        "# Reference: every key",
        "Made by `make reference` from `src/digitlab/config/schema.py` and the files of `conf/`; "
        "`python src/train.py --help` says the same. A group is chosen by the name of a file in `conf/`, as in "
        "`model=mlp`; a key is set as in `optim.lr=0.01`; `+KEY=VALUE` adds what else the `_target_` of a group takes.",
    ]
    sections = _sections("train") | _sections("report") | _keys(RaySweep)
    for section, title in SECTIONS.items():
        parts.append(f"## {title}")
        if choices := _choices(section):
            rows = [[f"`{section}={name}`", text] for name, text in choices.items()]
            parts.append(_table(["choice", "what it is"], rows))
        if keys := sections[section]:
            rows = [[f"`{key.name}`", f"`{key.default}`", key.allowed, key.meaning] for key in keys]
            parts.append(_table(["key", "default", "allowed", "meaning"], rows))
    return "\n\n".join(parts) + "\n"


def editor_schema(job: str) -> str:
    """Return the JSON schema of the files that `job` is composed of: each may give any of the keys, or point to one."""
    schema = JOBS[job].model_json_schema()
    pointer = {"type": "string", "pattern": r"^\?\?\?$|\$\{.+\}"}
    for node in (schema, *schema["$defs"].values()):  # a file may say a part of them, whatever its _target_ is
        node.pop("required", None)
        for name, child in node["properties"].items():
            said = {key: child.pop(key) for key in ("description", "default") if key in child}
            node["properties"][name] = said | {"anyOf": [*child.pop("oneOf", [child]), pointer]}
    schema["properties"] |= {"defaults": {"type": "array"}, "hydra": {"type": "object"}}
    return json.dumps({"$schema": "http://json-schema.org/draft-07/schema#"} | schema, indent=1) + "\n"


def files() -> dict[Path, str]:
    """Return every file that is made here, with its content."""
    schemas = {CONF / f"{job}.schema.json": editor_schema(job) for job in JOBS}
    return {REPOSITORY / "docs" / "reference.md": markdown()} | schemas


def _sections(job: str) -> dict[str, list[Key]]:
    """Return the keys of a job by the group or node that they stand in, those that stand in none first."""
    keys = _keys(JOBS[job])
    return {section: keys[section] for section in SECTIONS if section in keys or section in _chosen(job)}


def _keys(model: type[BaseModel]) -> dict[str, list[Key]]:
    """Return the keys of a model by the section that they stand in."""
    description, keys = Description(model.model_json_schema()), defaultdict(list)
    for name, node in description.leaves(description.root):
        section = name.partition(".")[0]
        default = as_text(node.get("default", "???")) or '""'
        key = Key(name, default, description.allowed(node), node.get("description", ""))
        keys[section if section in SECTIONS else ""].append(key)
    return keys


def _chosen(job: str) -> dict[str, str]:
    """Return the choice in each group where none is made."""
    defaults = [each for each in OmegaConf.load(CONF / f"{job}.yaml").defaults if isinstance(each, Mapping)]
    return {group: as_text(choice) for each in defaults for group, choice in each.items() if group in SECTIONS}


def _choices(group: str, folders: Sequence[Path] = (CONF,)) -> dict[str, str]:
    """Return the files of a group, but for the one that others build on, with what each says that it is."""
    files = [file for folder in folders for file in sorted((folder / group).glob("*.yaml"))] if group else []
    texts = {
        file.stem: file.read_text("utf-8", "replace").removeprefix("# @package _global_\n")
        for file in files
        if file.stem != "base"
    }
    return {name: text.partition("\n")[0].removeprefix("# ") for name, text in texts.items()}


def _item(key: str, text: str) -> str:
    """Set a key beside what there is to say of it, or above where it is long."""
    indent = " " * INDENT
    filled = fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
    return f"{key:{INDENT}}{filled[INDENT:]}" if len(key) < INDENT else f"{key}\n{filled}"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    for file, content in files().items():
        file.write_text(content, "utf-8")
