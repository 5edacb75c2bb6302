"""GPQ: loads learned models, encodes images with them and searches the codes.

The method is Generalized Product Quantization (Jang & Cho, CVPR 2020).

Packages, each of which imports only from those below it:

    engine    runs a model's network in OpenVINO, ONNX Runtime or torch
    scan      finds the best codes for a query exactly, in C++, on GPUs or in numpy
    model     codebooks, the files of an artifact and the checks of its graph
    pixels    decodes image files and prepares their pixels for a network
    native    loads the compiled C++ libraries
    system    files, memory, processors and devices of the operating system
    errors    the errors that gpq raises on purpose

Symbols, used with these names everywhere in the project:

    B  batch size                     N  number of codes
    M  codebooks                      K  codewords in each, 16 (4 bits)
    d  sub-vector dimension, 12       D  feature dimension, M * d
    F  network (B,3,H,W) -> (B,D)     Z  codewords (M,K,d)
    C  classifier, prototypes W_m     bits = 4 * M
"""

__version__ = "0.1.0"
