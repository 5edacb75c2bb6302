"""The network F over the features of a frozen encoder."""

from torch import Tensor, nn


class Head(nn.Module):
    """A linear layer from the standardised features (B,E) of an encoder to (B,D)."""

    def __init__(self, features: int, dimension: int) -> None:
        super().__init__()
        self.project = nn.Linear(features, dimension)

    def forward(self, features: Tensor) -> Tensor:
        projected: Tensor = self.project(features)
        return projected
