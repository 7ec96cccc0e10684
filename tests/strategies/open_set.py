"""DevNet, DRA and BGAD in a size for tests."""

from strategies.bgad import BGAD
from strategies.devnet import DevNet
from strategies.dra import DRA

SIZES = dict(groups=150, group_size=16, layers=(-1, 1), pseudo=3)
MADE = {
    DevNet: dict(epochs=60, hidden=32),
    DRA: dict(epochs=60, hidden=32),
    BGAD: dict(epochs=60, hidden=48, couplings=4),
}


def make(cls, **more):
    return cls(**{**SIZES, **MADE[cls], **more})
