"""Augments batches on the device: (B,3,H,W) uint8 -> (B,3,H,W) float32, 0-255."""

import torch
import torch.nn.functional as functional
from torch import Tensor

SHIFT_PIXELS_AT_32 = 4  # the paper's translation; it grows with the image


def weak(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors with probability 1/2 and shifts by up to 4/32 of the side; new pixels are zero."""
    b, _, h, w = pixels.shape
    device = pixels.device
    reach = max(1, h * SHIFT_PIXELS_AT_32 // 32)
    padded = functional.pad(pixels, (reach, reach, reach, reach))
    dy, dx = _integers(0, 2 * reach + 1, (2, b), generator, device)
    flip = _uniform((b,), generator, device) < 0.5
    columns = torch.arange(w, device=device)
    columns = torch.where(flip[:, None], columns.flip(0), columns) + dx[:, None]
    rows = torch.arange(h, device=device) + dy[:, None]
    batch = torch.arange(b, device=device)[:, None, None]
    shifted = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return shifted.permute(0, 3, 1, 2).float()


def strong(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Augments weakly, then applies a random affine map, colour jitter and one cut-out square."""
    images = weak(pixels, generator) / 255
    images = _affine(images, generator)
    images = _colour(images, generator)
    return _cutout(images, generator) * 255


def _affine(images: Tensor, generator: torch.Generator) -> Tensor:
    b, device = len(images), images.device
    angle, shear_x, shear_y, zoom_x, zoom_y, move_x, move_y = (
        2 * _uniform((7, b), generator, device) - 1
    )
    angle = angle * 0.35
    cos, sin = angle.cos(), angle.sin()
    sx, sy = 1 + 0.2 * zoom_x, 1 + 0.2 * zoom_y
    row_x = torch.stack([sx * cos, -sin + 0.25 * shear_x, 0.15 * move_x], dim=1)
    row_y = torch.stack([sin + 0.25 * shear_y, sy * cos, 0.15 * move_y], dim=1)
    theta = torch.stack([row_x, row_y], dim=1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _colour(images: Tensor, generator: torch.Generator) -> Tensor:
    b, device = len(images), images.device
    brightness, contrast, saturation = (2 * _uniform((3, b, 1, 1, 1), generator, device) - 1) * 0.5
    tint = (2 * _uniform((b, 3, 1, 1), generator, device) - 1) * 0.1
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (1 + saturation)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * (1 + contrast)
    images = images * (1 + 0.6 * brightness) + tint
    invert = _uniform((b, 1, 1, 1), generator, device) < 0.05
    return torch.where(invert, 1 - images, images).clamp(0, 1)


def _cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    """Covers one grey square of up to half the side (DeVries & Taylor 2017)."""
    b, _, h, w = images.shape
    device = images.device
    side = _uniform((b, 1), generator, device) * h / 2
    y = _uniform((b, 1), generator, device) * h
    x = _uniform((b, 1), generator, device) * w
    in_rows = (torch.arange(h, device=device) - y).abs() < side / 2
    in_columns = (torch.arange(w, device=device) - x).abs() < side / 2
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return images.masked_fill(hole, 0.5)


def _uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.rand(shape, generator=generator, device=device)


def _integers(
    low: int, high: int, shape: tuple[int, ...], generator: torch.Generator, device: torch.device
) -> Tensor:
    return torch.randint(low, high, shape, generator=generator, device=device)
