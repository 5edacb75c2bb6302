"""The errors that the package raises on purpose.

GPQError
├── ImageError               an image cannot be used; the message says why
│   ├── UnknownFormat        the bytes have no signature of a supported format
│   │   └── EmptyFile        the file has no bytes
│   ├── BrokenImage          the format is supported, but the file cannot be decoded
│   ├── TooManyPixels        the image is larger than the pixel limit
│   └── DecodeLimit          decoding takes more time or memory than allowed
├── ArtifactError            a model folder cannot be used; the message names the file
│   └── GraphError           the graph of a network asks for something that is not allowed
├── DeviceError              the requested device does not exist
└── ScanError                a scan engine is unavailable or cannot handle its arguments
    └── DeviceFull           a device lacks memory; the message has the bytes needed and free
"""


class GPQError(Exception):
    """The base class of all errors of this package."""


class ImageError(GPQError):
    """An image cannot be used."""


class UnknownFormat(ImageError):
    """The bytes have no signature of a supported format."""


class EmptyFile(UnknownFormat):
    """The file has no bytes."""


class BrokenImage(ImageError):
    """The bytes are of a supported format but cannot be decoded."""


class TooManyPixels(ImageError):
    """The header announces more pixels than allowed."""


class DecodeLimit(ImageError):
    """Decoding takes more processor time or memory than allowed."""


class ArtifactError(GPQError):
    """A model folder is missing or damaged, or its model computes other codes than it should."""


class GraphError(ArtifactError):
    """The graph of a network is damaged, or asks for something that is not allowed."""


class DeviceError(GPQError):
    """The requested device does not exist."""


class ScanError(GPQError, ValueError):
    """A scan engine is unavailable or cannot handle the arguments of a call."""


class DeviceFull(ScanError):
    """A device has too little free memory."""
