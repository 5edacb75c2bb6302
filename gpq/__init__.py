"""GPQ: the model, what an artifact is and what it computes.

Generalized Product Quantization (Jang & Cho, CVPR 2020). Symbols, used with
these names everywhere in the project:

    B  batch size                     N  number of codes
    M  codebooks                      K  codewords in each, 16 (4 bits)
    d  sub-vector dimension, 12       D  feature dimension, M * d
    F  network (B,3,H,W) -> (B,D)     Z  codewords (M,K,d)
    C  classifier, prototypes W_m     bits = 4 * M
"""

__version__ = "0.1.0"
