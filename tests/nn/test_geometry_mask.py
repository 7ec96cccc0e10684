import math

import pytest
import torch

from toolkit.nn.geometry_mask import geometry_variation, hidden_tokens


def naive(centre, eta, weight):
    """Loops over the definition, with the singular vectors of the centred neighbours for PCA."""
    distance = torch.cdist(centre, centre, compute_mode="donot_use_mm_for_euclid_dist")
    r = eta * (distance + 1e9 * torch.eye(len(centre))).min(1)[0].mean()
    near = [torch.nonzero(row <= r)[:, 0] for row in distance]
    normals, curvatures = [], []
    for i, rows in enumerate(near):
        offset = centre[rows] - centre[rows].mean(0)
        _, value, vector = torch.linalg.svd(offset.double(), full_matrices=True)
        value = torch.cat([value, torch.zeros(3 - len(value))]) ** 2
        normal = vector[2]
        normals.append(-normal if (centre[i] - centre.mean(0)).double() @ normal < 0 else normal)
        curvatures.append(value[2] / (value.sum() + 1e-8))
    scores = []
    for i, rows in enumerate(near):
        angles = [math.acos(max(-1.0, min(1.0, float(normals[i] @ normals[j])))) for j in rows]
        bends = [abs(float(curvatures[i] - curvatures[j])) for j in rows]
        scores.append(sum(angles) / len(rows) + weight * sum(bends) / len(rows) if len(rows) >= 3 else 0.0)
    return torch.tensor(scores)


def test_agrees_with_a_loop_over_the_definition():
    unit = torch.nn.functional.normalize(torch.randn(150, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    body = unit * torch.tensor([1.0, 0.8, 0.5]) * (1 + 0.3 * (4 * unit[:, :1] * unit[:, 1:2]).sin())
    centre = torch.cat([body, torch.tensor([[9.0, 0, 0]])])  # alone: too few neighbours for a plane
    found = geometry_variation(centre, 3.0, 10.0)
    assert torch.allclose(found, naive(centre, 3.0, 10.0), atol=1e-3)
    assert found[-1] == 0 and found[:-1].min() > 0


def test_varies_at_an_edge_and_not_on_a_face_in_any_pose_and_scale():
    grid = torch.cartesian_prod(torch.arange(20.0), torch.arange(20.0)) / 10
    floor = torch.cat([grid, torch.zeros(400, 1)], 1)
    wall = torch.cat([torch.zeros(400, 1), grid + torch.tensor([0.0, 0.1])], 1)
    centre = torch.cat([floor, wall])
    found = geometry_variation(centre, 3.0)
    edge = (centre[:, [0, 2]].norm(dim=1) < 0.15) & (centre[:, 1] - 1).abs().lt(0.5)
    middle = (centre[:, 0] - 1).abs().lt(0.3) & (centre[:, 1] - 1).abs().lt(0.3)
    assert found[edge].min() > 5 * found[middle].max()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    assert torch.allclose(geometry_variation(7 * centre @ turn.t() + 3, 3.0), found, atol=0.02)


def test_coinciding_centres_have_no_variation():
    assert geometry_variation(torch.zeros(5, 3)).tolist() == [0] * 5


@pytest.mark.parametrize("largest", [True, False])
def test_the_most_or_the_least_varied_are_hidden(largest):
    variation = torch.randn(3, 50, generator=torch.Generator().manual_seed(2)).abs()
    hidden = hidden_tokens(variation, 0.4, torch.tensor([largest] * 3))
    assert hidden.sum(1).tolist() == [20] * 3
    for row, mask in zip(variation, hidden):
        inside, outside = (row[mask], row[~mask]) if largest else (-row[mask], -row[~mask])
        assert inside.min() >= outside.max()


def test_each_cloud_has_its_own_choice():
    variation = torch.arange(10.0).expand(2, 10)
    hidden = hidden_tokens(variation, 0.2, torch.tensor([True, False]))
    assert hidden.nonzero().tolist() == [[0, 8], [0, 9], [1, 0], [1, 1]]
