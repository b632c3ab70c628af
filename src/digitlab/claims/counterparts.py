"""The counterparts of claims: their recipes with something changed, and what their files say of the change."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from digitlab import CONF
from digitlab.claims.recipes import changes_of
from digitlab.config.recognize import said_by

FILE = re.compile(r"^# @package _global_\n# (?P<says>.*)\.\n.*?override /claim: (?P<claim>\w+)", re.S)


@dataclass(frozen=True)
class Counterpart:
    """A file of conf/counterpart; `unstated` is what its claim's document leaves open and this one fills otherwise."""

    name: str
    claim: str
    says: str
    unstated: str

    def is_all_of(self, changes: Mapping[str, str]) -> bool:
        """Say whether `changes` of the claim's recipe are this one's, and no more were made by hand."""
        return changes_of(self.name) == dict(changes)


@cache
def counterparts() -> dict[str, Counterpart]:
    """Return those of conf/counterpart, by name."""
    found = {}
    for file in sorted((CONF / "counterpart").glob("*.yaml")):
        if told := FILE.match(file.read_text("utf-8")):
            claim = said_by(file).get("claim") or {}
            says = " ".join(told["says"].replace("\n#", "").split())
            found[file.stem] = Counterpart(file.stem, told["claim"], says, str(claim.get("unstated", "")))
    return found
