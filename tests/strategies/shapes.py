"""A body to scan, whole or with a bump, and training on scans of it."""

import torch

from toolkit.cloud import PointCloud
from toolkit.data.base import Sample
from toolkit.scenario import Task
from toolkit.stream import CloudExperience, CloudList


def body(seed, bump=0.0, turned=False, points=1500, category="body", width=0.15):
    """A random scan of a body without symmetry, with a bump on one side, in a random pose if asked for.

    Returns the cloud and where the bump is (or would be).
    """
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(points, 3, generator=generator), dim=1)
    x, y, z = unit.unbind(1)
    radius = 1 + 0.35 * x - 0.25 * y * z + 0.3 * (4 * x * y).sin() * z
    centre = torch.nn.functional.normalize(torch.tensor([0.3, 0.8, 0.5]), dim=0)
    strength = (-((unit - centre).norm(dim=1) / width).square()).exp()
    pos = unit * torch.tensor([30.0, 20.0, 16.0]) * (radius * (1 + bump * strength))[:, None]
    if turned:
        turn = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
        pos = pos @ (turn * torch.linalg.det(turn)).t() + 50 * torch.randn(3, generator=generator)
    return PointCloud(pos, category=category, sample_id=f"{category}{seed}"), strength > 0.3


def train_on(strategy, clouds, position=0):
    """Train a strategy on clouds as one task of a stream; returns it, ready to score."""
    samples = [Sample(c.category, "train", c.sample_id, c.sample_id, 0) for c in clouds]
    found = {c.sample_id: c for c in clouds}
    ids = {name: i for i, name in enumerate(sorted({c.category for c in clouds}))}
    listed = CloudList(f"train/{position}", samples, lambda s: found[s.sample_id], [ids[c.category] for c in clouds])
    experience = CloudExperience(listed, Task("task", tuple(samples), ()), position)
    strategy.train(experience)
    strategy.model.eval()
    return strategy


def finds_the_bump(strategy):
    """Whether a strategy trained on `body` scores a bump high, in a cloud in another pose."""
    cloud, where = body(9, bump=0.25, turned=True)
    with torch.no_grad():
        scored, normal = strategy.score(cloud), strategy.score(body(8, turned=True)[0])
    there, elsewhere = scored.point[where], scored.point[~where]
    return bool(there.mean() > elsewhere.mean() + 2 * elsewhere.std()) and scored.object > normal.object
