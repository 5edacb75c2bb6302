"""Makes views of images and the input of F from them, for pixels and for features."""

from typing import Protocol

import torch
from torch import Tensor

from gpq.engine import torch_pixels
from gpq.pixels.preprocess import Preprocess
from trainer.components import augment
from trainer.data.image_sets import Standard, TrainingSet

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


PLAIN = 2  # the first views of a frozen part: the image as a search sees it, its mirror image


def is_weak(view: int) -> bool:
    """Returns whether a view of a frozen part, by its number, is a weak one."""
    return view < PLAIN or view % 2 == 0


class FeatureViews:
    """Views of (B,V,E) features of a frozen part: V views of each image.

    A weak view is one of the weak ones among the V (``is_weak``), a strong view is any of them. If
    the features are standardised, so that 0 is the mean of each, a strong view lacks some too.
    """

    def __init__(self, standard: Standard | None = None) -> None:
        self.standard = standard
        if standard:
            self._scale = 1 / standard.deviation
            self._offset = -standard.mean * self._scale

    def weak(self, images: Tensor, generator: torch.Generator) -> Tensor:
        views = images.shape[1]
        chosen = self._draw(len(images), sum(map(is_weak, range(views))), images, generator)
        return self._take(images, torch.where(chosen < PLAIN, chosen, PLAIN * (chosen - 1)))

    def strong(self, images: Tensor, generator: torch.Generator) -> Tensor:
        views = self._take(images, self._draw(len(images), images.shape[1], images, generator))
        if self.standard is None:
            return views
        return views.masked_fill_(self._dropped(views, generator), 0)

    def plain(self, images: Tensor) -> Tensor:
        return self.view(images, 0)

    def view(self, images: Tensor, number: int) -> Tensor:
        """Returns the view of this number of images (B,V,E): (B,E)."""
        return self._standardised(images[:, number])

    def network_input(self, views: Tensor) -> Tensor:
        return views

    def _draw(self, count: int, most: int, images: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randint(most, (count,), generator=generator, device=images.device)

    def _take(self, images: Tensor, chosen: Tensor) -> Tensor:
        rows = torch.arange(len(images), device=images.device) * images.shape[1] + chosen
        return self._standardised(images.flatten(0, 1).index_select(0, rows))

    def _dropped(self, views: Tensor, generator: torch.Generator) -> Tensor:
        """Returns a mask (B,E). A random byte for each feature is drawn, eight at a time."""
        count, features = views.shape
        words = torch.empty(count, -(-features // 8), dtype=torch.int64, device=views.device)
        drawn = words.random_(-(2**63), None, generator=generator)
        return drawn.view(torch.uint8)[:, :features] < round(256 * DROPPED)

    def _standardised(self, features: Tensor) -> Tensor:
        found = features.float()
        if self.standard is None:
            return found
        return torch.addcmul(self._offset, found, self._scale)


def views_of(data: TrainingSet, rules: Preprocess, device: torch.device) -> Views:
    """Returns the views of images (N,3,S,S), or of features (N,V,E), that are on the device."""
    if data.labelled.ndim == 4:
        return PixelViews(rules)
    return FeatureViews(data.standard and data.standard.to(device))
