"""Say whether a sweep was looked at before, by a race or by a report, and what that costs."""

import json
from typing import Any

from digitlab.analysis.cells import ALPHA
from digitlab.tracking import queries
from digitlab.tracking.store import Store

TAG = "report.looks"  # of a sweep's run: the numbers of runs that reports have been made of
# How often the truly best of equal cells is lost at one of so many looks, after 3, 5, 10 and 20 seeds, each with an
# error of 5 % of its own; simulated, see docs/statistics.md.
COST = {2: "8 %", 3: "10 %", 4: "13 %"}


def notes(store: Store, parent: Any, runs: int) -> list[str]:
    """Return what is to be said of earlier looks at the sweep of the run `parent`, of which `runs` are done now."""
    return [
        *_of_race(_recorded(store, parent, "race.json")),
        *_of_reports([each for each in _earlier(parent) if each != str(runs)]),
    ]


def of_claims(store: Store, parent: Any) -> list[str]:
    """Return what is to be said of the looks of a sweep of claims that bought seeds where a verdict was open."""
    swept = _recorded(store, parent, "claims.json")
    if not swept.get("looks"):
        return []
    return [
        f"Seeds were bought where a verdict was open, by sweep.seeds=auto, after {_and(list(swept['looks']))} runs: "
        f"{swept['end'] or 'the sweep is not over'}. Simulated with true claims, one of nine is called BETTER or WORSE "
        "in 5.5 % of such sweeps, and in 6.1 % of those of five runs each."
    ]


def record(store: Store, parent: Any, runs: int) -> None:
    """Record with the sweep that so many of its runs have been looked at; the same again are no other look."""
    earlier = _earlier(parent)
    if str(runs) not in earlier:
        store.client.set_tag(parent.info.run_id, TAG, ", ".join([*earlier, str(runs)])[-5000:])


def _recorded(store: Store, parent: Any, name: str) -> dict[str, Any]:
    """Return what a sweep recorded of its looks in an artifact of its run; nothing where there is no such."""
    with queries.artifact(store, parent.info.run_id, name) as file:
        return json.loads(file.read_text()) if file else {}


def _earlier(parent: Any) -> list[str]:
    return [each for each in parent.data.tags.get(TAG, "").split(", ") if each]


def _of_race(race: dict[str, Any]) -> list[str]:
    if not race.get("looks"):
        return []
    planned, done = round(ALPHA / race["level"]), list(race["looks"])
    outrun = {each["name"] for standings in race["looks"].values() for each in standings if not each["is_left"]}
    out = [f"{name} ({why})" for name, why in race["out"].items() if name not in outrun]
    listed = f" Not compared: {'; '.join(out)}." if out else ""
    return [
        f"Seeds were bought where they decide, by sweep.seeds=auto: after {_and(done)} seeds a cell left the race at "
        f"p < {race['level']:.4g}, an error of 5 % shared among {planned} look{'s' if planned > 1 else ''}. The truly "
        f"best cell is among those left in 95 % of cases: {', '.join(race['left']) or 'none'}; "
        f"{race['end'] or 'the race is not over'}.{listed} The marks below "
        "are one more look at the same runs, at p < 0.05: a cell that is left may be marked worse there."
    ]


def _of_reports(earlier: list[str]) -> list[str]:
    if not earlier:
        return []
    looks = len(earlier) + 1
    cost = COST.get(looks, f"more than {COST[max(COST)]}")
    before = f"{_and(earlier)} run{'s' if earlier != ['1'] else ''}"
    return [
        f"Looked at before, in reports on {before}. Whoever adds seeds or drops cells for what a look showed has "
        f"{looks} chances to be wrong: simulated with equal cells, some look loses the truly best in {cost} of cases, "
        "a single one in 5 %. sweep.seeds=auto shares the error among its looks."
    ]


def _and(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
