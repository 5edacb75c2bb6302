"""Every error the package raises on purpose.

GPQError
├── ImageError               one picture is at fault; the message says how
│   ├── UnknownFormat        no signature of a format we read
│   │   └── EmptyFile        no bytes at all
│   ├── BrokenImage          a known format that cannot be decoded
│   └── TooManyPixels        larger than the pixel limit
├── ArtifactError            a model folder that cannot be used; names the file
├── DeviceError              a device that is not there
└── ScanError                a search or a build asked for the impossible
    └── DeviceFull           the device has no room; the message has bytes needed and free
"""


class GPQError(Exception):
    """Base of all errors of this package."""


class ImageError(GPQError):
    """One picture cannot be used."""


class UnknownFormat(ImageError):
    """The bytes carry no signature of a format we read."""


class EmptyFile(UnknownFormat):
    """No bytes at all."""


class BrokenImage(ImageError):
    """The bytes are of a known format but do not decode."""


class TooManyPixels(ImageError):
    """The header announces more pixels than allowed."""


class ArtifactError(GPQError):
    """A model folder is missing, damaged, or computes something else."""


class DeviceError(GPQError):
    """The device asked for is not there."""


class ScanError(GPQError, ValueError):
    """Arguments a scan engine cannot serve."""


class DeviceFull(ScanError):
    """The memory of a device does not suffice."""
