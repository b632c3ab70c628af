"""The field's claims against what was read from their sources: field.yaml."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from digitlab.claims.page import flags
from digitlab.claims.recipes import read_claim
from digitlab.config.build import build
from digitlab.config.check import check
from digitlab.config.compose import configuration
from digitlab.data.sources import Images
from digitlab.data.splits import Division

CONF = Path(__file__).parents[2] / "conf"
FIELD = yaml.safe_load(Path(__file__).with_name("field.yaml").read_text())

# By their sources. The others read the test images after every epoch, or hold images out.
TESTED_ONCE = {"tf_quickstart", "tf_softmax", "tf_deep_mnist", "tf_layers", "tf_fashion", "dlwp_2_1", "dlwp_5_1",
               "mlm_mnist_final", "mlm_fashion_final", "udacity_mlp", "homl2_fashion", "hardmaru_fashion",
               "hardmaru_mnist", "xfan_fashion", "xfan_mnist", "cmasch_fashion", "cmasch_mnist"}  # fmt: skip


@pytest.mark.parametrize("name", FIELD)
def test_a_claims_file_says_what_its_source_says(harness, name):
    accuracy, data, parameters, batch, epochs, images, optimizer, rate = FIELD[name]
    cfg = check(harness.compose(f"claim={name}"))
    most = 4 if cfg.claim.runs == 1 and data != "mnist_pooled" else 5  # 10,000 images give no more decimals
    assert cfg.claim.accuracy == round(float(accuracy), most)
    with configuration():
        claim = read_claim(name)
    assert claim.folds == (5 if name.startswith("mlm_") and not name.endswith("_final") else 1)
    decimals = min(len(str(accuracy).partition(".")[2]), most)
    assert claim.rounding == pytest.approx(0.5 / 10**decimals)
    assert claim.claimed.split(",")[0] == f"{float(accuracy):.{decimals}f}"
    assert (cfg.claim.data, cfg.data.source.get("name", "mnist")) == (data, data)
    assert cfg.claim.get("tested_once", False) is (name in TESTED_ONCE)
    assert (cfg.data.batch_size, cfg.trainer.max_epochs) == (batch, epochs)
    assert (cfg.optim._target_.rpartition(".")[2], cfg.optim.lr) == (optimizer, rate)
    network = build(cfg, "model", num_classes=10, input_shape=[3, 32, 32] if data == "cifar10" else [1, 28, 28])
    assert cfg.claim.parameters == parameters
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    keys = ("split", "val_fraction", "test_fraction", "skip_first", "split_seed")
    division = Division(*(cfg.data[key] for key in keys), cfg.data.get("folds"), cfg.data.get("fold", 0))
    labels, pixels = torch.arange(10).repeat(25_000), torch.zeros(1, 1, 1, dtype=torch.uint8)
    copied = [180_000, 10_000]
    counts = {"mnist_pooled": [70_000], "mnist_moved": [250_000, 10_000, 10_000], "cifar10": [50_000, 10_000],
              "fashion_copied": copied, "mnist_copied": copied}.get(data, [60_000, 10_000])  # fmt: skip
    even = Images("even", tuple("0123456789"), *((pixels.expand(n, 1, 1), labels[:n]) for n in counts))
    splits = division.apply(even)
    assert splits.sizes["train"] == images


def test_a_document_has_one_name_whatever_is_claimed_in_it():
    with configuration():
        named = sorted({read_claim(file.stem).document for file in (CONF / "claim").glob("*.yaml")})
    assert not [(one, other) for one in named for other in named if one != other and other.startswith(one)]


@pytest.mark.parametrize("name", FIELD)
def test_what_a_document_leaves_open_is_apart_from_what_ours_does_otherwise(name):
    """A remark on ours is none on the document, and neither raises the other's flag."""
    with configuration():
        claim = read_claim(name)
    assert "ours" not in claim.unstated
    assert ("U" in flags(claim), "L" in flags(claim)) == (bool(claim.unstated), bool(claim.contradicted))


@pytest.mark.parametrize("file", sorted((CONF / "claim").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_header_of_a_claim_says_what_a_run_costs(file):
    header = file.read_text().partition("\ndefaults:")[0]
    assert re.search(
        r"GPU|# (About|Less than) [\d.]+ minutes a run on 2 cores, (measured beside other work|estimated)\.", header
    )
