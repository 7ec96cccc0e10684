import csv
import json

import pytest
import torch

from toolkit.data.parts import PARTS
from toolkit.nn.slice_pretrain import Scans, accuracy, pretrain
from toolkit.nn.slice_trunk import SHIPPED, load_slice_trunk


def test_scans_are_slices_of_allowed_variants_in_any_pose():
    for held_out in (False, True):
        scans = Scans(held_out, 0, clouds=1)
        views, target = scans.draw(3)
        assert views.shape == (3, 4, 64, 64) and views.min() >= 0 and views.max() <= 1
        filled = (views > 0).float().mean((2, 3))
        assert (filled > 0.02).all() and views.std() > 0.1
        for category, name, _ in scans.stock:
            assert (name == list(PARTS.values())[category].subcategories[-1]) == held_out
        assert ((target >= 0) & (target < len(PARTS))).all()


def test_shipped_trunk_has_a_record_and_does_what_it_says():
    record = json.loads(SHIPPED.with_suffix(".json").read_text())
    rows = list(csv.DictReader(SHIPPED.with_suffix(".csv").open()))
    assert SHIPPED.stat().st_size < 1e6 and float(rows[-1]["loss"]) < float(rows[0]["loss"]) - 0.3
    claimed = record["accuracy_on_held_out_variants"]
    assert claimed > 0.2  # chance is 0.05
    assert accuracy(load_slice_trunk("shipped"), seed=9, clouds=60) == pytest.approx(claimed, abs=0.2)


@pytest.mark.slow
def test_training_repeats_and_lowers_the_loss():
    first, curve = pretrain(0, steps=50, batch=8)
    second, again = pretrain(0, steps=50, batch=8)
    assert curve[-1]["loss"] < curve[0]["loss"] and curve[-1]["loss"] == again[-1]["loss"]
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
