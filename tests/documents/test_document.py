"""What texts of a user's come to in a document: they are read, and change nothing of it."""

import numpy as np

from digitlab.analysis.records import Predictions
from digitlab.documents.document import Section, Table, to_markdown
from digitlab.documents.model_card import model_card

HOSTILE = "one\n\n# two | <script>alert(1)</script> <b>bold</b>\n- three, p < 0.05\n"


def test_a_text_of_several_lines_with_tags_stays_where_it_is():
    table = Table(["a", "b"], [[HOSTILE, "1"], ["x", "2"]])
    written = to_markdown("T", HOSTILE, [Section("S", [HOSTILE, [HOSTILE, "y"], table])])
    lines = [line for line in written.splitlines() if line]
    assert [line[:2] for line in lines] == ["# ", "**", "##", "on", "- ", "- ", "| ", "| ", "| ", "| "]
    assert "<script" not in written
    assert "<b" not in written
    assert "p < 0.05" in written
    assert r"two \| &lt;script>" in lines[8]


def test_a_card_says_no_calibration_of_what_is_no_number():
    labels = np.array([0, 1, 1])
    found = [
        Predictions(labels=labels, predicted=np.zeros(3, int), classes=["a", "b"], confidence=np.full(3, each))
        for each in (np.nan, 0.5)
    ]
    cards = [model_card("T", {}, each, "load()") for each in found]
    assert ["calibration" in card for card in cards] == [False, True]
    assert all("test accuracy: 0.3333" in card for card in cards)
