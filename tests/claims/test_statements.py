"""What a document says of ratios and of layers, beside its number."""

import pytest

from digitlab.claims.schema import Layers, Statement


@pytest.mark.parametrize(("ratio", "word"), [(7.93, "true"), (7.4, "FALSE")])
def test_statements_are_checked(ratio, word):
    assert word in str(Statement("over 7.5 times", "one", "other", ratio, 7.5, float("inf")))


@pytest.mark.parametrize(("ours", "word"), [([320, 18496], ": the same"), ([320, 18497], "NOT the same")])
def test_parameters_of_layers_are_compared(ours, word):
    said = str(Layers([320, 18496], ours))
    assert f"320 and 18,496 parameters printed of the first layers, 320 and {ours[1]:,} counted" in said
    assert word in said
