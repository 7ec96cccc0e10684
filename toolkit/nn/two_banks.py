"""Several banks of one method under one byte budget."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from toolkit.nn.bank import Bank, Policy, bank_bytes, parse_bytes, update


def update_together(banks: Mapping[str, Bank], new: Mapping[str, Mapping[str, Tensor]], shares: Mapping[str, float], *,
                    policy: Policy, budget: int | str, seed: int = 0) -> dict[str, Bank]:  # fmt: skip
    """All banks of a method after a task has arrived, see `toolkit.nn.bank.update`.

    Rows of different banks have different widths, so a coreset cannot choose among them. Each bank therefore gets a
    share of the bytes, and what a bank leaves of its share goes to those named after it: name the one that can always
    use more last.

    Args:
        banks: by name, before the task.
        new: rows of the task by bank and category.
        shares: of the budget, by bank, in the order in which banks are served; they add up to 1.
        policy, seed: as for `update`.
        budget: bytes of all banks together; not used by the policy growing.

    Returns:
        New banks, by name in the order of `shares`. Under a budget all of them together take at most that many bytes.

    Raises:
        HyperparameterError: an unknown policy, or a share that holds no row (quota: none per category).
    """
    total = parse_bytes(budget)
    found: dict[str, Bank] = {}
    promised = 0.0
    for name, share in shares.items():
        promised += share
        left = max(1, int(total * min(promised, 1.0)) - sum(map(bank_bytes, found.values())))
        found[name] = update(banks.get(name, {}), new.get(name, {}), policy=policy, budget=left, seed=seed)
    return found
