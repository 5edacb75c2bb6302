"""The network F over the features of a frozen encoder."""

from torch import Tensor, nn

from gpq.engine.torch_architectures import projection


class Head(nn.Module):
    """The last layer alone, from the standardised features (B,E) of an encoder to (B,D).

    ``classes``: how many classes it computes the probabilities of.
    """

    def __init__(self, features: int, dimension: int, classes: int = 0) -> None:
        super().__init__()
        self.project = projection(features, dimension, classes)

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.project(features)
        return projected
