import torch
from torch.nn.functional import normalize

from tests.trainer.recipes.test_recipe import config
from trainer.components.clustering import spherical_k_means
from trainer.components.model import GPQ


def test_groups_of_directions_are_found_in_each_set() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.stack([torch.eye(6)[:4], torch.eye(6)[2:]])
    noise = 0.1 * torch.randn(2, 4, 25, 6, generator=generator)
    points = normalize(centres[:, :, None] + noise, dim=-1).flatten(1, 2)
    points = points[:, torch.randperm(100, generator=generator)]
    means = spherical_k_means(points, 4)
    assert torch.allclose(means.norm(dim=-1), torch.ones(2, 4))
    cosines = torch.einsum("mkd,mcd->mkc", means, centres)
    assert (cosines.amax(dim=1) > 0.99).all()
    assert (cosines.amax(dim=2) > 0.99).all()


def test_as_many_groups_as_points_are_the_points() -> None:
    points = normalize(torch.randn(1, 5, 12), dim=-1)
    means = spherical_k_means(points, 5)
    cosines = means[0] @ points[0].T
    assert torch.allclose(cosines.amax(dim=0), torch.ones(5))
    assert torch.allclose(cosines.amax(dim=1), torch.ones(5))


def test_more_classes_than_codewords_share_them() -> None:
    torch.manual_seed(0)
    model = GPQ(config("modern", bits=16, details=1), 40)
    before = model.Z[3].clone()
    model.start_at_prototypes()
    prototypes = normalize(model.C, dim=-1)
    nearest = torch.einsum("mld,mkd->mlk", prototypes, model.Z[:3]).amax(dim=2)
    assert nearest.mean() > 0.8
    assert len(model.Z[0].unique(dim=0)) == 16
    assert torch.equal(model.Z[3], before)
    few = GPQ(config("modern", bits=16), 3)
    few.start_at_prototypes()
    assert torch.allclose(few.Z[:, :3], normalize(few.C, dim=-1))
