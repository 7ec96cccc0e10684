"""What runs say of the bytes kept between tasks and of the work of scoring."""

import json

import pytest
import torch

from tests.runs.stored import toy_run
from tests.toys import Toy, ToyBank, ToyNet


def cost_of(folder):
    return json.loads((folder / "result.json").read_text())["cost"]


@pytest.mark.parametrize("mode", ["Naive", "Replay", "EWC", "Cumulative", "AGEM"])
def test_kept_bytes(mode, tmp_path):
    cost = cost_of(toy_run(tmp_path, mode))
    assert cost["kept_bytes"] == cost["state_bytes"] + cost["plugin_bytes"] + cost["buffer_bytes"]
    clouds = sum(len(Toy().load(s).pos) for s in Toy().select(split="train")) * 13  # coordinates and a label
    if mode == "Cumulative":
        assert cost["buffer_bytes"] == clouds  # it keeps every training cloud
    elif mode in ("Replay", "AGEM"):
        assert 0 < cost["buffer_bytes"] <= clouds
    else:
        assert cost["buffer_bytes"] == 0
    weights = 4 * sum(p.numel() for p in ToyNet().model.parameters())
    if mode == "EWC":
        assert cost["plugin_bytes"] > 2 * weights  # importances and old weights
    if mode == "Naive":
        assert cost["plugin_bytes"] < weights


def test_macs_of_scoring(tmp_path):
    net = cost_of(toy_run(tmp_path))["macs_per_cloud"]
    points = [len(Toy().load(s).pos) for s in Toy().select(split="test")]
    per_point = sum(m.in_features * m.out_features for m in ToyNet().model.modules() if isinstance(m, torch.nn.Linear))
    assert net in {per_point * n for n in points}
    assert cost_of(toy_run(tmp_path, strategy_class=ToyBank))["macs_per_cloud"] == 0  # subtraction is no product
