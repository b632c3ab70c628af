"""Slips of the hand in KEY=VALUE are said in one line, with what is meant; what is right is let through."""

import pytest

from digitlab.config.arguments import check_slips
from digitlab.config.errors import UserError


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("optim.lr= 0.01", "optim.lr= 0.01: has a space beside the =; write optim.lr=0.01"),
        ("model=mlp optim.lr =0.01", "optim.lr =0.01: has a space beside the =; write optim.lr=0.01"),
        ("optim.lr = 0.01 seed=1", "optim.lr =: has a space beside the =; write optim.lr=0.01"),
        ("model= cnn_pool", "write model=cnn_pool"),
        ("+optim.x= [1,2]", "write +optim.x=[1,2]"),
        ("optim.lr=0,01", "optim.lr=0,01: has a comma; a decimal point: optim.lr=0.01; a run of each: -m "),
        ("+optim.x=-1,5", "a decimal point: +optim.x=-1.5"),
        ("model=mlp,cnn_pool", "has several values; a run of each: -m model=mlp,cnn_pool; a list: "),
        ("seed=0,1,2", "seed=0,1,2: has several values"),
    ],
)  # fmt: skip
def test_a_slip_is_said(typed, words):
    with pytest.raises(UserError) as said:
        check_slips(typed.split())
    assert words in str(said.value)


@pytest.mark.parametrize(
    "typed",
    ["-m optim.lr=0,01", "--multirun seed=0,1", "sweep=grid seed=0,1", "model.hidden=[{units:8},{units:4}]",
     "optim.betas=[0.9,0.99] seed=1", "data.root=a,b", "tracking.experiment= seed=1", "tracking.experiment= --cfg job",
     "~scheduler seed=1", "-c job optim.lr=0.1", "seed=choice(1,2) -m", "+x='a,b'", "hydra.mode=MULTIRUN seed=1,2"],
)  # fmt: skip
def test_what_is_right_is_let_through(typed):
    check_slips(typed.split())
