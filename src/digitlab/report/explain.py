"""Explain a run from its own record: command, results, code, differences from the defaults, data, machine."""

import json
from datetime import datetime
from typing import Any

from digitlab import CONF, REPOSITORY
from digitlab.config import fingerprint
from digitlab.config.check import check
from digitlab.config.compose import compose, configuration
from digitlab.config.leaves import flatten
from digitlab.config.names import GROUPS
from digitlab.documents.format import interval
from digitlab.platform import console, git
from digitlab.platform.text import count
from digitlab.report.sides import patched_files
from digitlab.tracking import queries, references
from digitlab.tracking.store import Store


def explain(store: Store, reference: str) -> int:
    """Print how the run that `reference` means was made, and what it came to; return 0."""
    run = references.resolve(store, reference)
    rows = {
        "run": f"{run.info.run_id}, {'done' if queries.is_done(run) else run.info.status}",
        "made": _when(run),
        "by": run.data.tags.get("mlflow.user", "unknown"),
        "command": run.data.tags.get("command", "not recorded"),
        "result": describe_result(run),
        "code": describe_code(store, run),
        "data": _data(run),
        "machine": _machine(run),
        "see it": store.directions(run.info.run_id),
    }
    if error := run.data.tags.get("error"):
        rows["ended with"] = error
    console.show_summary(str(run.info.run_name), rows)
    differing = deviations(run)
    if differing:
        groups = " ".join(f"{key}={run.data.params[key]}" for key in GROUPS if key in run.data.params)
        console.show_table(["differs from the defaults", "here", f"in {groups}"], differing, text_columns=3)
    else:
        console.say("nothing differs from the defaults of these choices but the seed")
    return 0


def deviations(run: Any) -> list[list[str]]:
    """Return key, value and default of each setting of a run that is not the default of its groups."""
    params = run.data.params
    chosen = {key: params[key] for key in GROUPS if key in params}
    known = [f"{key}={name}" for key, name in chosen.items() if (CONF / key / f"{name}.yaml").is_file()]
    with configuration():
        defaults = flatten(check(compose(*known, f"seed={params.get('seed', 0)}")))
    return [[key, value, defaults.get(key, "none")] for key, value in fingerprint.deviations(params, defaults).items()]


def describe_result(run: Any) -> str:
    """Say a run's test accuracy with its interval."""
    metrics, inputs = run.data.metrics, run.inputs.dataset_inputs
    if "test/acc" not in metrics or not inputs:
        return "not tested"
    accuracy, total = metrics["test/acc"], json.loads(inputs[0].dataset.profile)["test"]
    return f"test accuracy {accuracy:.4f} ({interval(accuracy, total)})"


def describe_code(store: Store, run: Any) -> str:
    """Say which code a run was made with."""
    tags = run.data.tags
    commit = tags.get("mlflow.source.git.commit", "")
    if not commit:
        return "in no git repository"
    said = [f"commit {commit}", *([f"modules of your own: {tags['code.own']}"] if "code.own" in tags else [])]
    if newer := git.commits_between(REPOSITORY, commit, "HEAD"):
        said.append(f"{count(len(newer), 'commit')} ago")
    if tags.get("git.dirty") == "true":
        files = patched_files(store, run.info.run_id)
        said.append(
            f"with uncommitted changes of {', '.join(files)} (its artifact uncommitted.patch)"
            if files
            else "with changes"
        )
    return ", ".join(said)


def _when(run: Any) -> str:
    began = datetime.fromtimestamp(run.info.start_time / 1000).strftime("%Y-%m-%d %H:%M:%S")
    seconds = run.data.tags.get("seconds")
    return f"{began}, in {seconds} s" if seconds else began


def _data(run: Any) -> str:
    if not run.inputs.dataset_inputs:
        return "not recorded"
    dataset = run.inputs.dataset_inputs[0].dataset
    sizes = ", ".join(f"{images:,} {stage}" for stage, images in json.loads(dataset.profile).items())
    return f"{dataset.name}: {sizes}; digest {dataset.digest}"


def _machine(run: Any) -> str:
    host = run.data.tags.get("owner", "").partition(":")[0]
    return "; ".join([host or "unknown", *run.data.tags.get("environment", "").strip().splitlines()])
