"""The module that is trained: network F, codewords Z and classifier C."""

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from gpq.engine import torch_architectures
from gpq.model.codebook import K
from trainer.components import losses
from trainer.components.assignment import intra_normalise, soft_assign
from trainer.components.clustering import spherical_k_means
from trainer.config import SUBVECTOR_DIMENSION, Config


class GPQ(nn.Module):
    """The network F: images -> (B,D), codewords Z (M,K,d) and prototypes C (M',L,d) of L classes.

    The first M' = M - ``config.details`` codebooks learn classes, the others details.
    ``network``: F, if it is not an architecture that the configuration names. ``means`` (M,K,d):
    what a search compares queries with instead of the codewords, if a recipe learns it, else None.
    """

    def __init__(self, config: Config, classes: int, network: nn.Module | None = None) -> None:
        super().__init__()
        self.M = config.M
        self.class_M = config.M - config.details
        d = SUBVECTOR_DIMENSION
        self.F = network or torch_architectures.build(config.network, self.M * d, config.width)
        self.Z = nn.Parameter(functional.normalize(torch.randn(self.M, K, d), dim=-1))
        self.means = nn.Parameter(self.Z.detach().clone()) if config.distilled else None
        self.C = nn.Parameter(functional.normalize(torch.randn(self.class_M, classes, d), dim=-1))

    def features(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> raw features (B,D) float32, before intra-normalisation."""
        out: Tensor = self.F(images)
        return out.float()

    def sub_vectors(self, raw: Tensor) -> Tensor:
        """(B,D) -> (B,M,d) unit sub-vectors."""
        return intra_normalise(raw, self.M)

    def class_part(self, x: Tensor) -> Tensor:
        """(B,M,d) -> (B,M',d), the sub-vectors of the codebooks that learn classes."""
        return x[:, : self.class_M]

    def detail_part(self, x: Tensor) -> Tensor:
        """(B,M,d) -> (B,M-M',d), the sub-vectors of the codebooks that learn details."""
        return x[:, self.class_M :]

    def class_codewords(self) -> Tensor:
        """Returns Z' = s_m(z; alpha, W_m): (M',K,d) unit codewords, moved by the prototypes."""
        prototypes = functional.normalize(self.C, dim=-1)
        return soft_assign(self.Z[: self.class_M].transpose(0, 1), prototypes).transpose(0, 1)

    def detail_codewords(self) -> Tensor:
        """Returns (M-M',K,d) unit codewords, which the prototypes do not move."""
        return functional.normalize(self.Z[self.class_M :], dim=-1)

    def codewords(self) -> Tensor:
        """Returns the codewords of the artifact: (M,K,d) unit."""
        return torch.cat([self.class_codewords(), self.detail_codewords()])

    @torch.no_grad()
    def learnt_means(self) -> Tensor | None:
        """Returns ``means`` for an artifact: the longest has length 1."""
        return None if self.means is None else self.means / self.means.norm(dim=2).max()

    @torch.no_grad()
    def start_at_prototypes(self) -> None:
        """Gives each class its own codeword in each codebook that learns classes.

        If there are more classes than codewords, groups of similar classes share a codeword.
        """
        prototypes = functional.normalize(self.C, dim=-1)
        if prototypes.shape[1] > K:
            prototypes = spherical_k_means(prototypes, K)
        self.Z[: self.class_M, : prototypes.shape[1]] = prototypes

    def class_logits(self, x: Tensor) -> Tensor:
        """(B,M',d) -> (B,M',L), the logits of L classes in each sub-space."""
        return losses.prototype_logits(x, self.C)
