"""Check a file of configuration before it is read: one that is broken, or grows when it is read, ends in one line."""

from pathlib import Path

import yaml

from digitlab.config.errors import UserError

LARGEST = 1_000_000  # bytes
DEEPEST = 50  # levels
MOST = 20_000  # values, each as often as it is referred to


def check_file(file: Path) -> None:
    """Raise UserError for a YAML file that is no text, too large, too deep, refers to itself, or grows when read."""
    if file.stat().st_size > LARGEST:
        raise UserError(f"{file}: has more than {LARGEST:,} bytes")
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is no text in UTF-8 (byte {error.start})") from error
    try:
        if _is_deep(text):
            raise UserError(f"{file}: has more than {DEEPEST} levels")
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{file}: {_said(error)}") from error
    if root and _count(root, file, {}, ()) > MOST:
        raise UserError(f"{file}: has more than {MOST:,} values, with those that it refers to")


def _said(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + " ".join(str(getattr(error, "problem", None) or error).split())


def _is_deep(text: str) -> bool:
    """Say whether values lie too deep in each other; reading stops at the first of them."""
    level = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > DEEPEST:
            return True
    return False


def _count(node: yaml.Node, file: Path, counted: dict[int, int], above: tuple[int, ...]) -> int:
    """Return how many values `node` stands for; one that several refer to is counted for each, and looked at once."""
    if id(node) in above:
        raise UserError(f"{file}: line {node.start_mark.line + 1} refers to itself")
    if id(node) not in counted:
        _check_keys(node, file)
        inside = [node for pair in node.value for node in pair] if isinstance(node, yaml.MappingNode) else node.value
        children = inside if isinstance(node, yaml.CollectionNode) else ()
        counted[id(node)] = 1 + sum(_count(child, file, counted, (*above, id(node))) for child in children)
    return counted[id(node)]


def _check_keys(node: yaml.Node, file: Path) -> None:
    """Raise UserError where a mapping has a key twice, of which readers of YAML take the last in silence."""
    keys = [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    named: set[tuple[str, str]] = set()
    for key in (each for each in keys if isinstance(each, yaml.ScalarNode)):
        if (key.tag, key.value) in named:
            raise UserError(f"{file}: line {key.start_mark.line + 1}: {key.value}: is given twice")
        named.add((key.tag, key.value))
