"""Makes a model with shorter codes from the first codebooks of a model with nested codes."""

from pathlib import Path

from gpq.model import artifact
from gpq.model.weights import NETWORK_PREFIX
from trainer.artifacts.saving import derive, require_free
from trainer.errors import TrainerError, writing

LAST_LAYER = ("project.weight", "project.bias")


def cut(source: Path, bits: int, folder: Path, *, overwrite: bool = False) -> str:
    """Writes an artifact whose codes are the first ``bits`` bits of ``source``'s; returns its id.

    Its scores are those of the first codebooks. Raises TrainerError if ``bits`` is not a multiple
    of 4 below the source's code length, or if ``folder`` has a model and ``overwrite`` is false.
    """
    require_free(folder, overwrite=overwrite)
    model = artifact.load(source)
    whole = model.codebook.bits
    if bits % 4 or not 0 < bits < whole:
        raise TrainerError(
            f"{source} has codes of {whole} bits, which cannot be cut to {bits}: give a multiple "
            f"of 4 below {whole}"
        )
    codebook = model.codebook.first(bits // 4)
    dimension = codebook.M * codebook.Z.shape[2]
    last = {}
    for name in (NETWORK_PREFIX + layer for layer in LAST_LAYER):
        if name not in model.weights.tensors:
            raise TrainerError(
                f"{source}: its network has no layer {LAST_LAYER[0]!r} that could be cut"
            )
        last[name] = model.weights.tensors[name][:dimension]
    about = {**model.about, "measured": None, "cut_from": {"id": model.id, "bits": whole}}
    with writing(folder):
        return derive(model, folder, codebook, about, network=last)
