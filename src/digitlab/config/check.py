"""Check what a composed configuration says, before anything is built of it."""

import logging
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from digitlab.config.allowed import KEY
from digitlab.config.build import check_special, special_keys
from digitlab.config.environment import from_environment
from digitlab.config.errors import UserError
from digitlab.config.fingerprint import processes
from digitlab.config.leaves import as_text
from digitlab.config.names import GROUPS
from digitlab.config.published import current, rename_targets
from digitlab.config.ungiven import UNGIVEN
from digitlab.platform.environment import started
from digitlab.platform.secrets import has_secret
from digitlab.platform.startup import fast_imports

RECORDED_NAMES = {"tracking.experiment", "sweep.name"}  # by which runs are found again
logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it says in ten lines what ends as one of ours

# Of what is built, the keys that are read here too, or whose default would be another library's.
NEEDED = ("trainer.max_epochs", "trainer.accelerator", "trainer.precision", "trainer.callbacks")


def check(cfg: DictConfig) -> DictConfig:
    """Return a resolved copy of `cfg` that can be written to; raise UserError for an unknown key or a bad value."""
    for key in RECORDED_NAMES & from_environment(cfg).keys():
        raise UserError(f"{key}: is recorded, so it may not come from the environment; type it")
    if KEY in cfg:
        raise UserError(f"{KEY}: is taken from the command line alone, where it is {KEY}=NAMES; no file may give it")
    content = OmegaConf.to_container(cfg, resolve=True)
    for key, name, value in special_keys(content):
        check_special(key, name, value)
    content = rename_targets(content, current)  # files that were written for 0.1 go on working
    cfg = DictConfig(content)
    if "names" in content:
        _check_claim(content)
    missing = [key for key in OmegaConf.missing_keys(cfg) if not key.startswith("scheduler.")]
    if missing:
        raise UserError(f"{missing[0]}: has no default; give it as {missing[0]}=VALUE")
    _validate("Run", content | {"scheduler": content.get("scheduler") or None})
    if content.get("claim"):
        _check_statement(content["claim"])
        _check_networks(content["claim"])
    return cfg


def check_process(cfg: DictConfig) -> None:
    """Raise UserError where other processes were started with this one than those that share the run of `cfg`."""
    found, count, nodes = started(), processes(cfg), cfg.trainer.get("num_nodes", 1)
    if found is None:
        if nodes > 1:
            raise UserError(f"trainer.num_nodes={nodes}: torchrun or srun must start the processes of each machine")
    elif count == 1:
        several = "several runs at once: digitlab sweep with hydra/launcher=joblib or slurm"
        raise UserError(f"{found}, and a run is one; start it without, or share it: trainer=ddp ({several})")
    elif found.by not in ("torchrun", "srun"):
        raise UserError(f"{found}; allowed: torchrun, srun, or none of them")
    elif count != found.size:
        raise UserError(f"{found}, and trainer.devices={count // nodes} x trainer.num_nodes={nodes} makes {count}")


def check_alone(what: str) -> None:
    """Raise UserError where this process is one of several, and `what` it is asked for is the work of one."""
    if found := started():
        raise UserError(f"{found}, and {what} is one; start it without: trainer.devices=N has the others started")


def check_launcher(cfg: DictConfig, launcher: str) -> None:
    """Raise UserError where the run of `cfg`, in several processes, would be one of several runs of a machine."""
    if launcher in ("joblib", "ray") and (count := processes(cfg)) > 1:
        raise UserError(
            f"trainer.devices={count}: not with hydra/launcher={launcher}, whose workers share the machine already; "
            "leave out one of them"
        )


def check_ray(keys: Mapping[str, Any]) -> None:
    """Raise UserError for an unknown key or a bad value in what the launcher of Ray is told."""
    _validate("RaySweep", {"hydra": {"launcher": dict(keys)}})


def check_report(cfg: DictConfig) -> None:
    """Raise UserError for an unknown key or a bad value in what a report is told."""
    _validate("ReportJob", OmegaConf.to_container(cfg, resolve=True))
    told = {key: value for key, value in cfg.report.items() if value is not None}
    foreign = [key for key in ("arm", "metric", "seed") if key in told]
    needed = next((key for key in ("arm", "metric") if foreign and key not in told), None)
    if needed:
        raise UserError(f"report.{foreign[0]}={told[foreign[0]]}: is for runs that digitlab did not make, which need "
                        f"report.{needed} too")  # fmt: skip
    if foreign and "sweep" in told:
        raise UserError(f"report.sweep={told['sweep']}: has digitlab's own runs; choose others with report.filter")


def check_sweep(cfg: DictConfig) -> None:
    """Raise UserError for an unknown key or a bad value in the node `sweep`, which says what runs there are."""
    check_alone("a sweep")
    _validate("Sweep", OmegaConf.to_container(cfg.sweep, resolve=True), "sweep")
    written = OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, ["tracking"])) + OmegaConf.to_yaml(cfg.hydra.sweeper)
    if "://" in written and has_secret(written):
        raise UserError("tracking.uri: a sweep's files would hold its password; give it as MLFLOW_TRACKING_URI=ADDRESS")
    overrides: Any = OmegaConf.to_container(cfg.hydra.overrides.task)  # as they are written, with names of variables
    for told in overrides:
        if "://" in told and has_secret(told):
            key = told.lstrip("+~").partition("=")[0]
            raise UserError(
                f"{key}: a sweep's files would hold what is secret in it; name a variable: ${{oc.env:NAME}}"
            )
    launcher = cfg.hydra.runtime.choices["hydra/launcher"]
    if cfg.sweep.detach and launcher != "slurm":
        raise UserError(
            f"sweep.detach=true: leaves jobs to SLURM, and hydra/launcher={launcher} has none; allowed: "
            "hydra/launcher=slurm"
        )
    if cfg.get("vs"):
        raise UserError(
            f"vs={cfg.vs}: is for one run; digitlab compare {cfg.vs} SWEEP compares those of a sweep with it"
        )
    if cfg.sweep.seeds != "auto":
        for key in ("sweep.max_seeds", "sweep.budget", "report.margin"):
            if (value := OmegaConf.select(cfg, key)) is not None:
                raise UserError(f"{key}={as_text(value)}: limits how many seeds are run; give it with sweep.seeds=auto")


def check_single_run(cfg: DictConfig) -> None:
    """Raise UserError where what is to be one run is told how to sweep."""
    told = {f"sweep.{key}": value for key, value in cfg.sweep.items() if value not in (None, False)}
    told |= {"report.margin": margin} if (margin := OmegaConf.select(cfg, "report.margin")) is not None else {}
    if told.pop("sweep.seeds", 1) != 1:
        told = {"sweep.seeds": cfg.sweep.seeds} | told
    if told and "sweep.parent" not in told:
        key, value = next(iter(told.items()))
        raise UserError(f"{key}={as_text(value)}: is for a sweep, and this is one run; sweep=NAME or -m makes many")


def check_claimed_data(cfg: DictConfig, name: str) -> None:
    """Raise UserError where the run of `cfg` is on the data `name` and its claim is of other data."""
    from digitlab.config.schema import Claim

    claimed = cfg.claim.get("data", Claim.model_fields["data"].default) if cfg.get("claim") else name
    if claimed != name:
        raise UserError(
            f"claim.data={claimed}: must be {name}, the data of the run; to train all the same, its file has "
            f"data: {name} under claim, or the command line claim.data={name}"
        )


def _validate(model: str, content: Any, *above: str) -> None:
    """Raise UserError for the first thing that is wrong with `content`, which stands under the keys `above`."""
    with fast_imports():  # here, for pydantic takes half as long to load as showing a configuration does
        from pydantic import ValidationError

        from digitlab.config import schema

    try:
        _check_present(getattr(schema, model).model_validate(content), above)
    except ValidationError as errors:
        root = schema.Run if above else getattr(schema, model)
        error = min(errors.errors(include_url=False), key=lambda each: len(each["loc"]))  # data.seed is often the seed
        raise UserError(_line(error, root.model_json_schema(), above)) from errors


def _check_present(found: Any, above: tuple[str, ...]) -> None:
    """Raise UserError for a key that was taken away though a run cannot be without it."""
    from digitlab.config import schema

    for name in type(found).model_fields:
        value, key = getattr(found, name), ".".join((*above, name))
        is_needed = value is not None and (not isinstance(found, schema.Built) or key in NEEDED)
        if is_needed and name not in found.model_fields_set | {"names"} and key not in UNGIVEN:
            raise UserError(f"{key}: is missing; give it as {key}=VALUE, {as_text(value)} by default")
        if isinstance(value, schema.Keys) and not isinstance(value, schema.Claim):
            _check_present(value, (*above, name))


def _line(error: Mapping[str, Any], root: Mapping[str, Any], above: tuple[str, ...]) -> str:
    """Say in one line what is wrong: `key=value: must be ...`, or `key: unknown key; allowed: ...`."""
    from digitlab.config.describe import Description

    description, location, kind, value = Description(root), (*above, *error["loc"]), error["type"], error["input"]
    if location[-1] == "[key]":
        key, node = description.follow(location[:-2])
        return f"{key}.{location[-2]}: unknown key; allowed: {', '.join(node['propertyNames']['enum'])}"
    if kind == "extra_forbidden":
        key, node = description.follow(location[:-1])
        named = f"{key}.{location[-1]}" if key else str(location[-1])
        return f"{named}: {_unknown(key, description.properties(node))}"
    key, node = description.follow(location)
    if kind == "missing" and not description.is_built(node):
        return f"{key}: has no default; give it as {key}=VALUE"
    if kind == "model_type" and not description.is_built(node):
        return f"{key}={as_text(value)}: {_unknown(key, description.properties(node))}"
    group = key if key in GROUPS else ""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", value) and kind.endswith("_type"):
        told = "and not text; of a variable ${oc.decode:${oc.env:NAME}} makes a number"
        return f"{key}='{value}': must be {description.allowed(node, group)}, {told}"
    return f"{key}={as_text(None if kind == 'missing' else value)}: must be {description.allowed(node, group)}"


def _unknown(key: str, known: Mapping[str, Any]) -> str:
    names = sorted(f"{key}.{name}" for name in known) if key else known
    return f"unknown key; allowed: {', '.join(names)}"


def _check_claim(content: Mapping[str, Any]) -> None:
    """Raise UserError where a choice of the group claim does not say what is claimed, or what is claimed has none."""
    chosen, said = content["names"]["groups"].get("claim"), content.get("claim")
    if chosen and not said:
        raise UserError(f"claim={as_text(said)}: must be a mapping; a claim's file says claim.document at least")
    if isinstance(said, Mapping) and "claim" in said:
        raise UserError("claim.claim: unknown key; a claim's file has # @package _global_ as its first line")
    if isinstance(said, Mapping) and not chosen and "document" not in said:  # one may be given whole
        raise UserError(f"claim.{next(iter(said))}: is of a claim; give claim=NAME")


def _check_statement(claim: Mapping[str, Any]) -> None:
    """Raise UserError where what a claim says of its accuracy contradicts itself."""
    given = -int(Decimal(str(claim.get("accuracy") or 0)).as_tuple().exponent)
    if (decimals := claim.get("decimals")) is not None and decimals < given:
        raise UserError(f"claim.decimals={decimals}: must be {given} or more, the digits of {claim['accuracy']}")
    if claim.get("statistic") == "best" and claim.get("runs", 1) == 1:
        raise UserError("claim.statistic=best: is of several runs; give claim.runs too")


def _check_networks(claim: Mapping[str, Any]) -> None:
    """Raise UserError where a claim speaks of a network that there is not; unknown where Hydra did not compose it."""
    if not GlobalHydra.instance().is_initialized():
        return
    known = GlobalHydra.instance().config_loader().get_group_options("model")
    named = {f"claim.counts.{name}": name for name in claim.get("counts", ())}
    for number, statement in enumerate(claim.get("statements", ())):
        named |= {f"claim.statements.{number}.{end}={statement[end]}": statement[end] for end in ("of", "to")}
    for key, name in named.items():
        if name not in known:
            raise UserError(f"{key}: must name a choice of model: {', '.join(known)}")
