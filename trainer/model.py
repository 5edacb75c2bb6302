"""The learnt parts together: network F, codewords Z and classifier C."""

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from gpq import network
from gpq.codebook import K, intra_normalise, soft_assign
from trainer import losses
from trainer.config import SUBVECTOR_DIMENSION, Config


class GPQ(nn.Module):
    """F: images -> (B,D); Z (M,K,d) codewords; C (M,L,d) prototypes of L classes."""

    def __init__(self, config: Config, classes: int) -> None:
        super().__init__()
        self.M = config.M
        d = SUBVECTOR_DIMENSION
        self.F = network.build(config.network, self.M * d, config.width)
        self.Z = nn.Parameter(functional.normalize(torch.randn(self.M, K, d), dim=-1))
        self.C = nn.Parameter(functional.normalize(torch.randn(self.M, classes, d), dim=-1))

    def features(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> raw (B,D) float32, before intra-normalisation."""
        out: Tensor = self.F(images)
        return out.float()

    def codewords(self) -> Tensor:
        """Z' = s_m(z; alpha, W_m): the codewords moved by the prototypes, (M,K,d) unit."""
        prototypes = functional.normalize(self.C, dim=-1)
        return soft_assign(self.Z.transpose(0, 1), prototypes).transpose(0, 1)

    @torch.no_grad()
    def start_at_prototypes(self) -> None:
        """Set the first codewords of each codebook to the prototypes, as far as both go."""
        count = min(K, self.C.shape[1])
        self.Z[:, :count] = functional.normalize(self.C[:, :count], dim=-1)

    def sub_vectors(self, raw: Tensor) -> Tensor:
        return intra_normalise(raw, self.M)

    def class_logits(self, x: Tensor) -> Tensor:
        """(B,M,d) -> (B,M,L)."""
        return losses.prototype_logits(x, self.C)
