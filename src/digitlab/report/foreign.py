"""Read runs that digitlab did not make: the user names what is compared, the seed and the accuracy."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np

from digitlab.analysis.records import Result
from digitlab.platform.text import count, did_you_mean
from digitlab.report.runs import chosen_by_result
from digitlab.tracking import queries
from digitlab.tracking.store import Store

LESS_IS_BETTER = re.compile(r"(^|[^a-z])(loss|err|error|mse|mae|rmse|nll|perplexity)([^a-z]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Keys:
    """What stands for arm, seed and accuracy of a run, in MLflow's words: "params.model", "metrics.test_acc".

    Without a `seed`, the runs of an arm are numbered in the order in which they began.
    """

    arm: Sequence[str]
    seed: str | None
    metric: str

    @property
    def axes(self) -> tuple[str, str]:
        """What networks and optimizers are here, in the words of these runs; "" where the arm is one key."""
        names = [key.partition(".")[2] for key in self.arm]
        return names[0], names[1] if len(names) > 1 else ""


def parse_keys(arm: str, seed: str | None, metric: str) -> Keys:
    """Read the keys as they are typed; raise ValueError for a metric of which less is better."""
    if LESS_IS_BETTER.search(metric):
        raise ValueError(f"metric={metric}: must be an accuracy, of which more is better")
    return Keys([key.strip().replace("`", "") for key in arm.split(",")], seed and seed.replace("`", ""), metric)


def find(store: Store, keys: Keys, filter_string: str | None) -> tuple[list[Result], list[str]]:
    """Return the results of the finished runs that have all `keys`, and notes on what was left out.

    Raises ValueError where no run has one of them, or where a value is not what it should be.
    """
    runs = list(queries.search(store, filter_string or ""))
    finished = [run for run in runs if run.info.status == "FINISHED"]
    which = f"filter={filter_string}" if filter_string else f"experiment={store.experiment}"
    if not finished:
        raise ValueError(f"{which}: finds no run that is finished")
    wanted = [*keys.arm, *([keys.seed] if keys.seed else []), keys.metric.replace("`", "")]
    for name, key in (*(("arm", key) for key in keys.arm), ("seed", keys.seed), ("metric", wanted[-1])):
        if key and not any(key in _values(run) for run in finished):
            raise ValueError(f"{name}={key}: no finished run has it; {_known(finished, key)}")
    complete, lacking = [], Counter({"not finished": len(runs) - len(finished)})
    for run in finished:
        missing = next((key for key in wanted if key not in _values(run)), None)
        if missing:
            lacking[f"without {missing}"] += 1
        else:
            complete.append(run)
    if not complete:
        raise ValueError(f"{which}: finds no run that has all of {', '.join(wanted)}")
    left = ", ".join(f"{number} {why}" for why, number in lacking.items() if number)
    notes = [f"The runs are not digitlab's: {keys.metric} is compared by {' and '.join(keys.arm)}."]
    notes += [f"Left out of {count(len(runs), 'run')}: {left}."] if left else []
    notes += chosen_by_result(filter_string or "")
    scale = _scale(complete, wanted[-1], keys.metric)
    notes += [f"{keys.metric} is in percent there, and is shown as a share here."] if scale == 100 else []
    complete.sort(key=lambda run: run.info.start_time)
    return list(_results(store, complete, keys, wanted, scale)), notes


def _results(store: Store, runs: Sequence[Any], keys: Keys, wanted: Sequence[str], scale: int) -> Iterator[Result]:
    earlier: Counter[tuple] = Counter()
    for run in runs:
        values = _values(run)
        first, *more = (values[key] for key in keys.arm)
        named = zip(keys.arm[2:], more[1:], strict=True)
        second = " ".join([*more[:1], *(f"{key.partition('.')[2]}={value}" for key, value in named)])
        earlier[first, second] += 1
        seed = _seed(keys.seed, values[keys.seed]) if keys.seed else earlier[first, second]
        accuracy = float(values[wanted[-1]]) / scale
        data, digest, images = _dataset(run)
        params = {f"params.{key}": value for key, value in run.data.params.items()}
        settings = {key.replace(" ", "_"): value for key, value in params.items() if key not in wanted}
        commit = run.data.tags.get("mlflow.source.git.commit", "none")[:10]
        yield Result(
            run_id=run.info.run_id,
            name=run.info.run_name,
            fingerprint="",
            model=first,
            optim=second,
            seed=seed,
            data=data or store.experiment,
            lr="",
            accuracy=accuracy if isfinite(accuracy) else 0.0,
            loss=None if isfinite(accuracy) else inf,
            test_images=images,
            val_acc=np.empty(0),
            val_loss=np.empty(0),
            epoch_s=np.empty(0),
            steps_per_epoch=0,
            parameters=None,
            settings=settings | {"code commit": commit, "data digest": digest},
            command="",
            host="",
            began=run.info.start_time,
            ended=run.info.end_time or run.info.start_time,
        )


def _values(run: Any) -> dict[str, Any]:
    """Return what is recorded of a run by its key in a filter: {"params.model": "cnn", "metrics.acc": 0.98}."""
    of = {"params": run.data.params, "tags": run.data.tags, "metrics": run.data.metrics}
    return {f"{kind}.{key}": value for kind, values in of.items() for key, value in values.items()}


def _known(runs: Sequence[Any], key: str) -> str:
    kind = key.partition(".")[0]
    known = sorted({each for run in runs for each in _values(run)})
    alike = [each for each in known if each.startswith(f"{kind}.") and not each.startswith("tags.mlflow.")]
    return f"there are: {', '.join(alike) or f'no {kind}'}{did_you_mean('', key, known)}"


def _scale(runs: Sequence[Any], key: str, named: str) -> int:
    """Return 1 where the values are shares and 100 where they are percent; raise ValueError where they are neither."""
    values = {run.info.run_name: float(_values(run)[key]) for run in runs}
    finite = {name: value for name, value in values.items() if isfinite(value)}
    if finite and min(finite.values()) > 1 and max(finite.values()) <= 100:
        return 100
    name = next((name for name, value in finite.items() if not 0 <= value <= 1), None)
    if name is not None:
        raise ValueError(f"metric={named}: must be an accuracy from 0 to 1, or of all runs from 1 to 100 percent; "
                         f"run {name} has {finite[name]:g}")  # fmt: skip
    return 1


def _seed(key: str, value: str) -> int:
    try:
        return int(float(value))
    except (ValueError, OverflowError):
        raise ValueError(f"seed={key}: must be a number in every run; one has {value!r}") from None


def _dataset(run: Any) -> tuple[str, str, int]:
    """Return name, digest and number of images of the data that a run was tested on, as far as it says; 0 for unknown.

    It is the input whose context says so, else the only one there is.
    """
    inputs = run.inputs.dataset_inputs if run.inputs else []
    contexts = [" ".join(tag.value for tag in each.tags if tag.key == "mlflow.data.context") for each in inputs]
    tested = [each for each, context in zip(inputs, contexts, strict=True) if re.search("test|eval", context, re.I)]
    (found, *others) = tested or inputs or [None]
    if found is None or others:
        return "", "", 0
    return found.dataset.name, found.dataset.digest, _rows(found.dataset.profile, is_test=bool(tested))


def _rows(profile: str | None, is_test: bool) -> int:
    """Return how many test images there are, by the profile of a data set as MLflow or digitlab writes it."""
    try:
        content = json.loads(profile or "{}")
    except ValueError:
        return 0
    if not isinstance(content, Mapping):
        return 0
    shape = content.get("features_shape")
    of_all = content.get("num_rows") or (shape[0] if isinstance(shape, list) and shape else 0)
    rows = content.get("test", of_all if is_test else 0)
    return rows if isinstance(rows, int) else 0
