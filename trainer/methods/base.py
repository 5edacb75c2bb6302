"""What a method learns from, and what it makes: a coder, which encodes and scores."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gpq.model.codebook import Codebook, sign_words

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
TOGETHER = 4096  # features that a network sees at a time


@dataclass(frozen=True)
class Lesson:
    """Features that a method learns from.

    labelled (L,E), labels (L,C) uint8 with 1 for each class of an image, and unlabelled (U,E).
    ``bits``: length of the codes, a multiple of 4. ``seed``: of all random numbers.
    """

    labelled: Floats
    labels: NDArray[np.uint8]
    unlabelled: Floats
    bits: int
    seed: int

    @property
    def M(self) -> int:
        return self.bits // 4

    @property
    def all(self) -> Floats:
        """The features of all images, (L+U,E)."""
        return np.concatenate([self.labelled, self.unlabelled])


class Coder(ABC):
    """Encodes features and scores codes."""

    @abstractmethod
    def encode(self, features: Floats) -> Codes:
        """Features (N,E) -> codes (N,W), W numbers for each image."""

    @abstractmethod
    def scores(self, queries: Floats, codes: Codes) -> Floats:
        """Features (Q,E) of queries and codes (N,W) -> scores (Q,N); a higher one is nearer."""


class TableCoder(Coder):
    """A coder whose score is a sum of one table entry for each of M sub-codes below 16."""

    @abstractmethod
    def tables(self, queries: Floats) -> Floats:
        """Features (Q,E) -> tables (Q,M,16)."""

    def scores(self, queries: Floats, codes: Codes) -> Floats:
        tables = self.tables(queries)
        found = np.zeros((len(queries), len(codes)), dtype=np.float32)
        for m in range(tables.shape[1]):
            found += tables[:, m, codes[:, m]]
        return found


class CodebookCoder(TableCoder):
    """Encodes and scores as a service does, by a network and a codebook, which an artifact can
    hold.

    ``network``: given features (N,E) -> features (N,D) of the codebook.
    """

    def __init__(self, network: nn.Module, codebook: Codebook) -> None:
        self.network, self.codebook = network.eval().requires_grad_(False), codebook

    def encode(self, features: Floats) -> Codes:
        return self.codebook.encode(run(self.network, features))

    def tables(self, queries: Floats) -> Floats:
        return self.codebook.lut(run(self.network, queries))


def signs_of(network: nn.Module, bits: int) -> Coder:
    """Returns the coder of the signs of a network's outputs (N,bits), compared by the Hamming
    distance."""
    return CodebookCoder(network, Codebook(sign_words(bits // 4), score="hamming"))


@torch.no_grad()
def run(network: nn.Module, features: Floats) -> Floats:
    """Computes the outputs of a network for features (N,E), some at a time."""
    parts = torch.split(torch.from_numpy(features), TOGETHER)
    found: Floats = np.concatenate([network(part).numpy() for part in parts])
    return found
