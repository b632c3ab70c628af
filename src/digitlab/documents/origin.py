"""Describe the provenance of a document: its runs, settings, machine and commands."""

from collections.abc import Sequence
from datetime import UTC, datetime

from digitlab.analysis.records import Result
from digitlab.platform.text import count


def origin(runs: Sequence[Result]) -> list[str | list[str]]:
    """Describe the runs of a document: how many, when, at which commit, on what, with which settings and commands."""
    same = {key: value for key, value in runs[0].settings.items() if all(x.settings.get(key) == value for x in runs)}
    wanted = ("trainer.max_epochs", "data.batch_size", "trainer.precision", "evaluate_on", "early_stopping.patience")
    settings = ", ".join(f"{key}={same[key]}" for key in wanted if key in same)
    machine = ", ".join(
        f"{name} {same[f'environment {name}']}".replace("CPU ", "") for name in ("CPU", "GPU", "torch")
        if f"environment {name}" in same
    )  # fmt: skip
    commands = list(dict.fromkeys(run.command for run in sorted(runs, key=lambda run: run.ended) if run.command))
    days = sorted({f"{datetime.fromtimestamp(run.ended / 1000, UTC):%Y-%m-%d}" for run in runs})
    return [
        [
            f"{count(len(runs), 'run')}, {' to '.join(dict.fromkeys((days[0], days[-1])))}"
            + (f", commit {same['code commit']}" if same.get("code commit", "none") != "none" else ""),
            *([f"on {machine}"] if machine else []),
            *([f"with {settings}"] if settings else []),
            *commands[:3],
            *([f"and {len(commands) - 3} more"] if len(commands) > 3 else []),
        ]
    ]
