import pytest
import torch

from toolkit.errors import HyperparameterError
from toolkit.nn.bank import bank_bytes, update
from toolkit.nn.two_banks import update_together

SHARES = {"small": 0.25, "large": 0.75}


def rows(count, dim, seed=0):
    feature = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return torch.cat([feature, torch.ones(count, 1)], 1)


def together(banks, small, large, policy, budget=8000):
    return update_together(banks, {"small": small, "large": large}, SHARES, policy=policy, budget=budget)


def size(banks):
    return sum(bank_bytes(bank) for bank in banks.values())


@pytest.mark.parametrize("policy", ["fixed", "quota", "overwrite"])
def test_both_banks_stay_within_one_budget_task_after_task(policy):
    banks = {}
    for task in range(3):
        banks = together(banks, {f"c{task}": rows(300, 3, task)}, {f"c{task}": rows(300, 19, task)}, policy)
        assert 7700 < size(banks) <= 8000
        assert bank_bytes(banks["small"]) == 2000  # 125 rows of 16 bytes: its share
    assert set(banks["small"]) == set(banks["large"]) == ({"c2"} if policy == "overwrite" else {"c0", "c1", "c2"})


def test_what_one_leaves_the_next_takes():
    banks = together({}, {"a": rows(10, 3)}, {"a": rows(300, 19)}, "fixed")
    assert bank_bytes(banks["small"]) == 160
    assert banks["large"]["a"].shape[0] == (8000 - 160) // 80
    assert list(banks) == ["small", "large"]


def test_growing_forgets_nothing_and_one_bank_is_update():
    banks = together({}, {"a": rows(300, 3)}, {"a": rows(300, 19)}, "growing", budget=1)
    banks = together(banks, {}, {"b": rows(5, 19)}, "growing", budget=1)
    assert banks["small"]["a"].shape[0] == 300 and banks["large"]["b"].shape[0] == 5
    one = update_together({}, {"x": {"a": rows(300, 3)}}, {"x": 1.0}, policy="quota", budget=800, seed=3)
    assert torch.equal(one["x"]["a"], update({}, {"a": rows(300, 3)}, policy="quota", budget=800, seed=3)["a"])


def test_a_share_too_small_for_a_row_is_an_error():
    with pytest.raises(HyperparameterError, match="budget"):
        together({}, {"a": rows(9, 3)}, {"a": rows(9, 19)}, "fixed", budget=40)
