"""Makes views of images and the input of F from them, for networks and for frozen encoders."""

from typing import Protocol

import torch
from torch import Tensor

from gpq.engine import torch_pixels
from gpq.pixels.preprocess import Preprocess
from trainer.components import augment

DROPPED = 0.2  # share of the features of a strong view that are set to their mean


class Views(Protocol):
    """Views of the images of a training set, on the device of the images.

    weak and strong: (B,…) images -> (B,…) views. plain: the images as a search sees them.
    network_input: views -> the input of F.
    """

    def weak(self, images: Tensor, generator: torch.Generator) -> Tensor: ...
    def strong(self, images: Tensor, generator: torch.Generator) -> Tensor: ...
    def plain(self, images: Tensor) -> Tensor: ...
    def network_input(self, views: Tensor) -> Tensor: ...


class PixelViews:
    """Views of (B,3,S,S) uint8 images."""

    def __init__(self, rules: Preprocess) -> None:
        self.rules = rules

    def weak(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return augment.weak(images, generator)

    def strong(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return augment.strong(images, generator)

    def plain(self, images: Tensor) -> Tensor:
        return images

    def network_input(self, views: Tensor) -> Tensor:
        normalised = torch_pixels.normalise(self.rules, views)
        return normalised.contiguous(memory_format=torch.channels_last)


class FeatureViews:
    """Views of (B,V,E) features of a frozen encoder: of each image and of its mirror image.

    They are standardised, so that 0 is the mean of a feature. A weak view is one of the V, a strong
    view lacks some of its features too.
    """

    def weak(self, images: Tensor, generator: torch.Generator) -> Tensor:
        device = images.device
        chosen = torch.randint(images.shape[1], (len(images),), generator=generator, device=device)
        return images[torch.arange(len(images), device=device), chosen]

    def strong(self, images: Tensor, generator: torch.Generator) -> Tensor:
        views = self.weak(images, generator)
        drawn = torch.rand(views.shape, generator=generator, device=views.device)
        return views.masked_fill(drawn < DROPPED, 0)

    def plain(self, images: Tensor) -> Tensor:
        return images[:, 0]

    def network_input(self, views: Tensor) -> Tensor:
        return views


def views_of(images: Tensor, rules: Preprocess) -> Views:
    """Returns the views of images: (N,3,S,S) pixels, or (N,V,E) features of an encoder."""
    return PixelViews(rules) if images.ndim == 4 else FeatureViews()
