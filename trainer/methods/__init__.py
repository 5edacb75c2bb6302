"""The methods of the paper's tables, by name. All learn from the same given features.

May import trainer.components, trainer.config and what those may.
"""

from collections.abc import Callable
from dataclasses import dataclass

from trainer.methods.base import Coder, Lesson
from trainer.methods.deep.bgdh import BGDH
from trainer.methods.deep.cnnh import CNNH
from trainer.methods.deep.dqn import DQN
from trainer.methods.deep.dtq import DTQ
from trainer.methods.deep.gpq import GPQ, GPQH, GPQT
from trainer.methods.deep.learning import learn
from trainer.methods.deep.ninh import NINH
from trainer.methods.deep.pqn import PQN
from trainer.methods.deep.ssdh import SSDH
from trainer.methods.deep.ssgah import SSGAH
from trainer.methods.deep.subic import SUBIC
from trainer.methods.shallow.products import lopq, opq, pq
from trainer.methods.shallow.signs import itq, sdh, sh


@dataclass(frozen=True)
class Method:
    """``uses``: which images it learns from: all without labels, labelled ones, or both.

    ``served``: whether its coder is a network and a codebook, which an artifact can hold.
    """

    learn: Callable[[Lesson], Coder]
    uses: str
    served: bool = True


UNLABELLED, LABELLED, BOTH = "no labels", "labels", "labels and unlabelled images"

METHODS: dict[str, Method] = {
    "PQ": Method(pq, UNLABELLED),
    "OPQ": Method(opq, UNLABELLED),
    "LOPQ": Method(lopq, UNLABELLED, served=False),
    "SH": Method(sh, UNLABELLED),
    "ITQ": Method(itq, UNLABELLED),
    "SDH": Method(sdh, LABELLED),
    "CNNH": Method(learn(CNNH), LABELLED),
    "NINH": Method(learn(NINH), LABELLED),
    "DQN": Method(learn(DQN), LABELLED),
    "SUBIC": Method(learn(SUBIC), LABELLED),
    "PQN": Method(learn(PQN), LABELLED),
    "DTQ": Method(learn(DTQ), LABELLED, served=False),
    "SSDH": Method(learn(SSDH), BOTH),
    "BGDH": Method(learn(BGDH), BOTH),
    "SSGAH": Method(learn(SSGAH), BOTH),
    "GPQ-H": Method(learn(GPQH), LABELLED),
    "GPQ-T": Method(learn(GPQT), BOTH),
    "GPQ": Method(learn(GPQ), BOTH),
}
