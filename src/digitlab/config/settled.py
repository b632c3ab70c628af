"""Write in one way what a configuration may say in several, so that who says either gets the same run."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from digitlab.config.errors import UserError
from digitlab.config.leaves import as_text, canonical, is_within
from digitlab.config.ungiven import UNGIVEN

KEPT = ("data.fold", "model")  # a fold may follow the seed; of a layer's keys the layer has the defaults
OF_CLAIMS = ("data.shuffle", "data.mean")  # which recipes say at their default, and so the runs of them that are done
ALSO = {"trainer.accumulate_grad_batches": (1,), "data.mean": (0, [0]), "data.std": (1, [1])}  # mean what null does
IMAGES = "digitlab.data.datamodule.ImageData"


def settle(cfg: DictConfig) -> None:
    """Leave out of the checked `cfg` each key that it need not give and gives at its default, and sort its metrics.

    Raises UserError for a key of an average that is of the other kind.
    """
    kept = [*KEPT, *(OF_CLAIMS if cfg.get("claim") else ()), *(() if cfg.data._target_ == IMAGES else ("data",))]
    for key in UNGIVEN:
        if not is_within(key, kept):
            _leave_out(cfg, key)
    if "metrics" in cfg:
        cfg.metrics = sorted(cfg.metrics, key=as_text)
    told = cfg.pop("averaging", None)
    if told:
        for key, kind in {"decay": "ema", "start": "swa"}.items():
            if key in told and told.get("kind") != kind:
                raise UserError(f"averaging.{key}={told[key]}: is of averaging.kind={kind}")
        cfg.averaging = {**({"decay": 0.999} if told["kind"] == "ema" else {"start": 0.75}), **told}


def _leave_out(cfg: DictConfig, key: str) -> None:
    """Leave out `key`, or what lies in it, where it says its default."""
    above, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, above) if above else cfg
    if not isinstance(node, DictConfig) or name not in node:
        return
    value = node[name]
    if isinstance(value, DictConfig):
        for inner in list(value):
            _leave_out(cfg, f"{key}.{inner}")
    elif canonical(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value) in _same_as_default(key):
        del node[name]


def _same_as_default(key: str) -> tuple:
    """Return the values of `key` that mean what it means not to give it."""
    from digitlab.config.schema import Run  # here, for pydantic takes long to load

    *above, name = key.split(".")
    node: Any = Run
    for part in above:
        node = node.model_fields[part].annotation
    return (node.model_fields[name].default, *ALSO.get(key, ()))
