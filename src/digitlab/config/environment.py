"""Know which values of a configuration came from the environment: they may be used, not printed or recorded."""

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.resolvers import oc

from digitlab.platform.secrets import hide, redact

PUBLIC = ("DIGITLAB_DATA", "MLFLOW_TRACKING_URI")  # conf/ reads them; a password in an address is hidden all the same
_MISSING = object()
_reads = [0]  # how often a value came from the environment


def env(key: str, default: Any = _MISSING) -> str | None:
    """Return a variable of the environment, or the default: OmegaConf's ${oc.env:KEY,DEFAULT}."""
    value = oc.env(key) if default is _MISSING else oc.env(key, default)
    if key not in PUBLIC:
        _reads[0] += 1
        hide(value)
    return value


def decode(expr: str | None, *, _parent_: Any, _node_: Any) -> Any:
    """Return what a text says by Hydra's grammar: OmegaConf's ${oc.decode:TEXT}."""
    value = oc.decode(expr, _parent_, _node_)
    if expr and redact(expr) != expr:  # it came from the environment
        hide(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
    return value


def from_environment(cfg: DictConfig) -> dict[str, str]:
    """Return, as it was written, every value of a composed configuration that is made of the environment, by key."""
    found: dict[str, str] = {}

    def visit(node: DictConfig | ListConfig, key: str) -> None:
        written: Any = OmegaConf.to_container(node, resolve=False)
        for name in range(len(node)) if isinstance(node, ListConfig) else list(node):
            inner = f"{key}.{name}" if key else str(name)
            if OmegaConf.is_missing(node, name):
                continue
            before, value = _reads[0], node[name]
            if OmegaConf.is_interpolation(node, name) and _reads[0] > before:
                found[inner] = written[name]
                hide(OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)
            elif OmegaConf.is_config(value):
                visit(value, inner)

    visit(cfg, "")
    return found


OmegaConf.register_new_resolver("oc.env", env, replace=True)
OmegaConf.register_new_resolver("oc.decode", decode, replace=True)
