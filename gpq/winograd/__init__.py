"""Networks of 3×3 convolutions on the CPU, with a quarter of the multiplications.

Winograd's minimal filtering, F(4×4, 3×3) in float32 (Lavin and Gray, CVPR 2016): a tile of 4×4
outputs takes 36 multiplications of each pair of channels, not 144. Norm, ReLU, pool and sum of
each convolution are done on its tiles while they are in the cache.
"""

from gpq.winograd.library import missing
from gpq.winograd.network import WinogradNetwork
from gpq.winograd.plan import Unsupported, plan

__all__ = ["Unsupported", "WinogradNetwork", "missing", "plan"]
