"""No strategy needs more than 4 GB to score a cloud of a million points; a new file in strategies/ is tested too."""

import pytest

from benchmarks.memory import LIMIT, enlarged, in_a_process
from toolkit.cloud import PointCloud
from toolkit.data.synthetic import Synthetic
from toolkit.registry import entries


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", sorted(entries("strategy")))
def test_a_million_points_within_four_gigabytes(name):
    found = in_a_process(name)
    assert found["finite"] and found["points"] == 1_000_000
    assert found["peak_bytes"] < LIMIT, f"{name} held {found['peak_bytes'] / 2**30:.1f} GB"


def test_what_is_reported_holds_together():
    found = in_a_process("BTF", points=20_000, preset="small")
    assert found["finite"] and found["points"] == 20_000 and found["seconds"] > 0
    assert 0 <= found["rise_bytes"] < found["peak_bytes"] < LIMIT
    with pytest.raises(RuntimeError, match="NoSuchThing"):
        in_a_process("NoSuchThing", points=10)


def test_enlarged_clouds_keep_their_attributes_together():
    dataset = Synthetic(categories=["bolt"], points=600, train=1, test_normal=1, test_defective=1)
    cloud = dataset.load(dataset.select(split="test")[0])
    cloud.height = cloud.pos[:, 2].clone()
    large = enlarged(cloud, 5000)
    assert isinstance(large, PointCloud) and large.pos.shape == (5000, 3) and large.point_y.shape == (5000,)
    extent = float((cloud.pos.amax(0) - cloud.pos.amin(0)).norm())
    assert float((large.height - large.pos[:, 2]).abs().max()) < 0.02 * extent
