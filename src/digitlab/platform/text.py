"""Make text fit for a screen and a log, whatever is in it."""

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 280  # characters of a line on a mistake, and of a value in it


def printable(text: str) -> str:
    r"""Return `text` with what a terminal would act on, or not show, written as in Python: \x1b, \u202e.

    Ends of lines and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(each if each in "\n\t" or not _acts(each) else _escaped(each) for each in text)


def _acts(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def count(number: int, noun: str) -> str:
    """Return a number with its noun: "1 run", "2 runs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def are(number: int) -> str:
    return "is" if number == 1 else "are"


def did_you_mean(above: str, name: str, known: Iterable[str], rest: str = "") -> str:
    """Return "; did you mean: ..." with those `known` names that are close to `name`, between `above` and `rest`."""
    by_lower = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), by_lower, n=3)
    return f"; did you mean: {', '.join(above + by_lower[each] + rest for each in close)}" if close else ""


def last_line(said: str, otherwise: str = "no reason given") -> str:
    """Return the last line of what a program said, cut to 200 characters; `otherwise` where it said nothing."""
    return (said.strip().splitlines() or [otherwise])[-1][:200]


def shorten(text: str) -> str:
    """Return `text` without its middle where it is long, and cut no word that is shorter than what is left of it."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    begin, end = text[:half], text[-half:]
    if text[half] != " " and " " in begin[half // 2 :]:
        begin = begin[: begin.rindex(" ")]
    if text[-half - 1] != " " and " " in end[: half // 2]:
        end = end[end.index(" ") + 1 :]
    return f"{begin.rstrip()} ... {end.lstrip()}"
