"""Make a run again from its own record, and say whether it came out the same."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from digitlab import REPOSITORY
from digitlab.analysis.records import Result
from digitlab.analysis.statistics import accuracy_interval
from digitlab.config import names
from digitlab.config.allowed import KEY, take_allowed
from digitlab.config.compose import compose, configuration
from digitlab.config.files import check_file
from digitlab.documents.format import interval
from digitlab.platform import console, git
from digitlab.report.runs import read_results
from digitlab.report.sides import differences
from digitlab.report.versus import is_identical, predict_from
from digitlab.tracking import queries, references
from digitlab.tracking.store import Store
from digitlab.training.run import train
from digitlab.training.setup import identify

NOT_RECORDED = ("tracking", "sweep", "report", "vs", "rerun")  # nodes that say nothing of what a run is
SAME, OTHER = 0, 1  # exit codes


def rerun(
    store: Store, reference: str, seed: int | None = None, into: str | None = None, allow_targets: str | None = None
) -> int:
    """Run again what `reference` means and print whether it came out identical; return 1 where its accuracy is another.

    With a `seed` it is another run of the same settings; `into` names the MLflow experiment that is to have it;
    `allow_targets` are installed packages that the record may name, as the command line has them. Raises ValueError
    where there is no such run, or it is not done and tested.
    """
    if allow_targets is not None:
        take_allowed([f"{KEY}={allow_targets}"])
    run = references.resolve(store, reference)
    if not queries.is_done(run):
        raise ValueError(f"{reference}: is not done ({run.info.status}); its command continues it")
    before = _read(run)
    if not before or not before.is_tested:
        raise ValueError(f"{reference}: has not been tested, so there is nothing to compare with")
    target = Store(store.uri, into or store.experiment)
    cfg = recorded(target, run, seed)
    offer_code(run)  # without it, what follows may not be found
    _, data, fingerprint = identify(cfg)
    if data.digest[:12] != before.settings["data digest"]:
        raise ValueError(f"{reference}: its data are not here: digest {before.settings['data digest']} then, and "
                         f"{data.digest[:12]} now")  # fmt: skip
    is_other = seed not in (None, before.seed)
    if fingerprint != before.fingerprint and not is_other:
        console.warn("what makes its numbers has changed since: digitlab's own results, or modules of your own")
    train(cfg)
    target.open(create=False)
    done, _ = queries.find(target, fingerprint)
    after = _read(done)
    assert after  # it is done
    if is_other:
        console.say(f"seed {seed}: test accuracy {after.accuracy:.4f}; seed {before.seed}: {before.accuracy:.4f}")
        return SAME
    return _say(store, before, after)


def recorded(store: Store, run: Any, seed: int | None = None) -> DictConfig:
    """Return the configuration of a run as it was recorded, to be run again in this store, with `seed` if one is given.

    Its data are looked for here where their folder of then is not.
    """
    with queries.artifact(store, run.info.run_id, "config.yaml") as file:
        if file is None:
            raise ValueError(f"{run.info.run_name}: has no config.yaml")
        check_file(file)
        cfg: Any = OmegaConf.load(file)
    groups = dict(cfg.pop("groups"))
    with configuration():
        defaults = compose()
    for key in defaults:
        if key in NOT_RECORDED or key not in cfg:
            cfg[key] = defaults[key]
    if cfg.data.get("root") and "root" in defaults.data and not Path(cfg.data.root).exists():
        cfg.data.root = defaults.data.root
    if seed is not None:
        if cfg.data.get("seed") == cfg.seed:
            cfg.data.seed = seed
        cfg.seed, groups["seed"] = seed, str(seed)
    cfg.tracking, cfg.rerun = {"uri": store.uri, "experiment": store.experiment}, True
    data = [groups["data"]] if groups["data"] != "mnist" else []
    prefix = "-".join([groups["model"], groups["optim"], f"s{run.data.params['seed']}", *data])
    names.write(cfg, groups, filter(None, [str(run.info.run_name).removeprefix(prefix).removeprefix("-")]))
    return cfg


def offer_code(run: Any) -> None:
    """Say how to get the code that a run was made with, where this is another."""
    tags, here = run.data.tags, git.read_checkout(REPOSITORY, ())
    commit, is_dirty = tags.get("mlflow.source.git.commit"), tags.get("git.dirty") == "true"
    if not commit or not here or (here.commit == commit and not is_dirty and not here.is_dirty):
        return
    said = f"it was made with commit {commit[:10]}{' and uncommitted changes' if is_dirty else ''}, and this is "
    said += f"{here.commit[:10]}{' with uncommitted changes' if here.is_dirty else ''}; for the code of then: "
    said += f"git worktree add --detach ../{commit[:10]} {commit[:10]}"
    if is_dirty:
        said += (
            f"; there, mlflow artifacts download -r {run.info.run_id} -a uncommitted.patch -d . brings the changes, "
        )
        said += "and git apply uncommitted.patch makes them"
    console.say(said)


def _read(run: Any) -> Result | None:
    return next(read_results([run]), None)


def _say(store: Store, before: Result, after: Result) -> int:
    changed = [key for key in differences([before], [after]) if key.startswith(("environment", "machine", "code"))]
    where = f" (other than then: {', '.join(changed)})" if changed else " (same machine, same code)"
    if is_identical([before], [after], predict_from(store)):
        console.say(f"identical: every prediction and the loss are the same to the bit{where}")
        return SAME
    low, high = accuracy_interval(before.accuracy, before.test_images)
    inside = low <= after.accuracy <= high
    console.say(
        f"{'not identical, but within' if inside else 'not the same: outside'} its interval: test accuracy "
        f"{after.accuracy:.4f}, then {before.accuracy:.4f} ({interval(before.accuracy, before.test_images)})"
        f"{where}"
    )
    return SAME if inside else OTHER
