"""A published network without its last layer, which makes the features that methods learn from."""

from contextlib import ExitStack, closing
from pathlib import Path

from torch import Tensor, nn

from gpq.engine import torch_architectures
from gpq.engine.torch_architectures import DEFAULT_WIDTHS
from gpq.pixels.preprocess import Preprocess
from trainer.components import pretrained
from trainer.config import Architecture
from trainer.data.images import Images
from trainer.data.skipped import print_skipped
from trainer.frozen.cache import FeatureCache
from trainer.frozen.features import ViewFeatures
from trainer.frozen.part import FrozenNetwork
from trainer.frozen.split import first_part
from trainer.methods.base import Floats
from trainer.options import require_fitting_size, rules_for


class Backbone:
    """Makes features of images; a context, in which an engine keeps the network loaded.

    ``place``: folder of the cache of features, of at most ``limit`` bytes. Raises TrainerError if
    there are no published weights for the network ``name``, or ``size`` is too small for it.
    """

    def __init__(self, name: str, size: int, device: str, place: Path, limit: int) -> None:
        built = Architecture(name, DEFAULT_WIDTHS.get(name, 0), size)
        require_fitting_size(built)
        self.name, self.size = name, size
        self.rules: Preprocess = rules_for(name, size)
        network = torch_architectures.build(name, 1, built.width).eval()
        pretrained.load_pretrained(network, name)
        self.network: nn.Module = first_part(network, None)
        self._part = FrozenNetwork(network, None, built, self.rules)
        self._device, self._place, self._limit = device, place, limit
        self._opened = ExitStack()

    def __enter__(self) -> "Backbone":
        self._running = self._opened.enter_context(self._part.running(self._device))
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def features(self, images: Images, what: str) -> tuple[Floats, Tensor]:
        """Returns features (N,E) of the images that can be read, and their rows."""
        with closing(FeatureCache(self._place, self._limit)) as cache:
            found = ViewFeatures(self._running, cache, seed=0).of_images(images, 1, what)
        print_skipped(found.skipped)
        return found.values[:, 0].float().numpy(), found.rows
