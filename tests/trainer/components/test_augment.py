import pytest
import torch

from trainer.components import augment


def image_set(b: int = 64, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (b, 3, size, size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("view", [augment.weak, augment.strong])
@pytest.mark.parametrize("size", [32, 48])
def test_views_keep_shape_and_range_and_follow_the_seed(view, size: int) -> None:
    batch = image_set(8, size)
    first = view(batch, torch.Generator().manual_seed(7))
    again = view(batch, torch.Generator().manual_seed(7))
    other = view(batch, torch.Generator().manual_seed(8))
    assert first.shape == batch.shape
    assert first.dtype == torch.float32
    assert first.min() >= 0 and first.max() <= 255
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_weak_view_is_a_shift_or_its_mirror() -> None:
    batch = image_set()
    views = augment.weak(batch, torch.Generator().manual_seed(0))
    mirrored = 0
    for image, view in zip(batch, views, strict=True):
        matches = []
        padded = torch.nn.functional.pad(image, (4, 4, 4, 4)).float()
        for dy in range(9):
            for dx in range(9):
                shifted = padded[:, dy : dy + 32, dx : dx + 32]
                # A mirrored shift equals a shift of the mirrored image.
                matches.append(torch.equal(view, shifted))
                matches.append(torch.equal(view.flip(-1), shifted))
        assert any(matches)
        mirrored += any(matches[1::2])
    assert 16 < mirrored < 48


def test_a_strong_view_changes_more_than_a_weak_one() -> None:
    flat = torch.full((64, 3, 32, 32), 128, dtype=torch.uint8)
    inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    assert augment.weak(flat, torch.Generator().manual_seed(0))[inner].std() == 0
    assert augment.strong(flat, torch.Generator().manual_seed(0))[inner].std() > 5
