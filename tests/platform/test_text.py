"""A long line loses its middle, and no part of a word."""

import pytest

from digitlab.platform.text import LONGEST, shorten


@pytest.mark.parametrize("length", range(1, 40, 3))
def test_no_word_is_cut(length):
    words = [f"{number:0{length}}" for number in range(10 ** min(length, 3))]
    short = shorten(" ".join(words))
    assert len(short) <= LONGEST + 5
    assert set(short.split()) <= {*words, "..."}


def test_short_text_stays_and_one_long_word_is_cut():
    assert shorten("a b") == "a b"
    assert len(shorten("x" * 5000)) == LONGEST + 5
