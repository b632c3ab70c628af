"""Keep secrets out of whatever is printed or recorded: values of the environment, passwords in addresses."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import quote, unquote, urlsplit

SHORTEST = 4  # characters of a text that is hidden wherever it stands; a shorter one stands in too much else
WORDY = 12  # characters of a text that is hidden inside of words, too
_ADDRESS = re.compile(r"\b((?!sqlite:|file:)[a-z][\w+.-]*://)[^\s'\"]*@", re.IGNORECASE)
_QUERY = re.compile(r"([?&;][\w.-]*(?:pass|pwd|secret|token|key|auth|cred|sig)[\w.-]*=)([^&\s'\"]*)", re.IGNORECASE)

_hidden: set[str] = set()


def hide(value: Any) -> None:
    """Have every text in `value` hidden from now on."""
    for text in _texts(value):
        forms = {text, *text.splitlines(), quote(text), quote(text, safe=""), unquote(text), text.strip()}
        _hidden.update(form for form in forms if len(form) >= SHORTEST)


def hide_password(address: str) -> None:
    """Have the passwords of an address hidden from now on, by themselves too."""
    hide([value for _, value in _QUERY.findall(address)])
    with suppress(ValueError):
        hide(urlsplit(address).password or "")


def redact(text: str) -> str:
    """Return `text` with *** in the place of what is hidden, and of user, password and keys of each address."""
    if _hidden:
        text = _pattern(frozenset(_hidden)).sub("***", text)
    if "://" in text:
        text = _ADDRESS.sub(r"\1***@", text)
    return _QUERY.sub(r"\1***", text) if "=" in text else text


def has_secret(text: str) -> bool:
    """Say whether `text` holds what must not be printed or recorded."""
    return redact(text) != text


@cache
def _pattern(hidden: frozenset[str]) -> re.Pattern:
    forms = (
        re.escape(text) if len(text) >= WORDY else rf"(?<!\w){re.escape(text)}(?!\w)"
        for text in sorted(hidden, key=len, reverse=True)
    )
    return re.compile("|".join(forms))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from (*_texts(key), *_texts(each))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            yield from _texts(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


class _Screen:
    """A stream that prints nothing hidden, whoever writes to it."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        self.stream.writelines(map(redact, lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def mask_screen() -> None:
    """Let nothing hidden reach the terminal from now on: tracebacks, warnings and other libraries' lines too."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if not isinstance(stream, _Screen):
            setattr(sys, name, _Screen(stream))
