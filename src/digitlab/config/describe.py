"""Say in words what a key may be, by the JSON schema that pydantic makes of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from digitlab.config.leaves import as_text

Node = Mapping[str, Any]


class Description:
    """The JSON schema of a model, walked by the keys of a configuration."""

    def __init__(self, root: Node):
        self.root = root

    def alternatives(self, node: Node) -> list[Node]:
        """Return what a value of `node` may be, references followed, null and false first as they are said."""
        if "$ref" in node:
            return [self.root["$defs"][node["$ref"].rpartition("/")[2]]]
        found = [each for one in node.get("anyOf", node.get("oneOf", ())) for each in self.alternatives(one)]
        return sorted(found, key=lambda each: each.get("type") not in ("null", "boolean")) or [node]

    def properties(self, node: Node) -> dict[str, Node]:
        """Return the keys that a value of `node` has, where it is a mapping of known keys."""
        return next((each["properties"] for each in self.alternatives(node) if "properties" in each), {})

    def is_built(self, node: Node) -> bool:
        return "_target_" in self.properties(node)

    def leaves(self, node: Node, key: str = "") -> Iterator[tuple[str, Node]]:
        """Yield every key below `node` that is given as one value; inside a group what is built is one."""
        for name, child in self.properties(node).items():
            inner = f"{key}.{name}" if key else name
            is_value = any("enum" in each or "const" in each for each in self.alternatives(child))  # or what is built
            if self.properties(child) and not (self.is_built(child) and (key or is_value)):
                yield from self.leaves(child, inner)
            elif not (name.startswith("_") or child.get("is_internal")):
                yield inner, child

    def follow(self, location: Sequence[str | int]) -> tuple[str, Node]:
        """Return the dotted key that pydantic's `location` means, and its node; pydantic names alternatives in it."""
        names, node = [], self.root
        for part in location:
            for each in self.alternatives(node):
                inner = each.get("properties", {}).get(part) or each.get("additionalProperties")
                inner = each.get("items") if isinstance(part, int) else inner
                if isinstance(inner, Mapping):
                    names, node = [*names, str(part)], inner
                    break
        return ".".join(names), node

    def allowed(self, node: Node, key: str = "") -> str:
        """Say what a value of `node` must be; of a group `key` it may be a choice."""
        said = list(dict.fromkeys(self._one(each, key) for each in self.alternatives(node)))
        return " or ".join(filter(None, (", ".join(said[:-1]), said[-1])))

    def _one(self, node: Node, key: str) -> str:
        if "const" in node or "enum" in node:
            names = [as_text(each) for each in node.get("enum", [node.get("const")])]
            return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        kind = node.get("type", "")
        if kind in ("integer", "number"):
            return _number(node)
        if kind == "array":
            return f"a list, each of it {self.allowed(node['items'])}"
        if "_target_" in node.get("properties", {}):
            return f"a choice of conf/{key} or have a _target_" if key else "a mapping with a _target_"
        names = {"null": "null", "boolean": "true or false", "object": "a mapping"}
        return node.get("form") or names.get(kind, "a name" if "minLength" in node or "pattern" in node else "text")


def _number(node: Node) -> str:
    """Say which numbers: a number above 0 and below 1, a number of pixels from 0 to 28."""
    said = "a whole number" if node["type"] == "integer" else "a number"
    said += f" of {node['unit']}" if "unit" in node else ""
    low = {"minimum": "from", "exclusiveMinimum": "above"}
    high = {"maximum": "to", "exclusiveMaximum": "and below"}
    bounds = [f"{word} {node[name]:.10g}" for name, word in (low | high).items() if name in node]
    return " ".join([said, *bounds])
