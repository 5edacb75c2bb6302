"""Image bytes -> checked upright RGB image -> (3,H,W). The only definition.

Training, indexing and querying all come through here, so that a picture means
the same everywhere. The rules are constants of the artifact (``Preprocess``).
"""

import io
import struct
import warnings
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from gpq.errors import BrokenImage, TooManyPixels, UnknownFormat

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # TIFF 6.0, section 3
DEFAULT_MAX_PIXELS = 100_000_000
SIGNATURE_BYTES = 16

# What Pillow's decoders raise on damaged data, beside OSError.
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    AttributeError, RuntimeError, ArithmeticError, AssertionError, struct.error, zlib.error,
    UnidentifiedImageError,
)  # fmt: skip


@dataclass(frozen=True)
class Preprocess:
    """The ``preprocess`` part of an artifact's ``compute``.

    size: pixels of the square input; mean, std: per channel, on the 0–255 scale.
    """

    size: int
    mean: tuple[float, float, float] = (125.642, 123.738, 114.46)
    std: tuple[float, float, float] = (63.01, 62.157, 66.94)
    orientation: str = "exif"
    colour: str = "icc-to-srgb"
    alpha: str = "over-white"
    grey16: str = "divide-257"
    resize: str = "shorter-side-bicubic-antialias"
    crop: str = "centre"

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Preprocess":
        """Raises ValueError where ``config`` asks for a rule this version lacks."""
        made = cls(**{**config, "mean": tuple(config["mean"]), "std": tuple(config["std"])})
        known = cls(size=made.size, mean=made.mean, std=made.std)
        if made != known:
            raise ValueError(
                f"picture rules {config} are not those of this version: {asdict(known)}"
            )
        return made

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB image -> (size,size,3) uint8: shorter side resized, centre crop."""
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        square = image.resize(
            (self.size, self.size),
            Image.Resampling.BICUBIC,
            box=(left, top, left + side, top + side),
        )
        return np.asarray(square)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B,3,H,W) on the 0–255 scale, any dtype -> float32 network input."""
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        return (pixels.float() - mean) / std

    def tensor(self, images: list[Image.Image]) -> Tensor:
        """RGB images -> (B,3,size,size) float32 network input."""
        if not images:
            return torch.empty(0, 3, self.size, self.size)
        stacked = np.stack([self.pixels(image) for image in images])
        return self.normalise(torch.from_numpy(stacked).permute(0, 3, 1, 2))


def limit_decoding(max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
    """Set Pillow's process-wide limits; call once at start.

    Frames inside a container are held to the same limit as the first header, and what
    Pillow thinks of an upload's odd tags stays out of the log.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


@cache
def formats() -> tuple[str, ...]:
    """FORMATS, and HEIF where the extra ``heic`` is installed."""
    Image.init()
    try:
        import pillow_heif
    except ImportError:
        return FORMATS
    pillow_heif.register_heif_opener(thumbnails=False)
    return (*FORMATS, "HEIF")


def signature(data: bytes) -> str | None:
    """The allowed format whose signature ``data`` carries, else None."""
    for name in formats():
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        # A driver that is not built in answers with a text that says so.
        if accept is not None and accept(data[:SIGNATURE_BYTES]) is True:
            return name
    return None


def media_type(data: bytes) -> str | None:
    """The media type of an allowed format by its signature, else None."""
    name = signature(data)
    return None if name is None else Image.MIME[name]


def load(
    data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, shrink_to: int | None = None
) -> Image.Image:
    """Uploaded bytes -> the first frame, upright, sRGB, mode RGB, whole.

    shrink_to: each side may come out smaller, but not smaller than this, where the format
    decodes a part of its pixels faster than all (JPEG); not for what is encoded.

    Raises UnknownFormat, TooManyPixels (from the header, before decoding) or
    BrokenImage; a truncated file is broken, never grey-filled.
    """
    name = signature(data)
    if name is None:
        raise UnknownFormat(_why_unknown(data))
    try:
        image = Image.open(io.BytesIO(data), formats=formats())
        if image.width * image.height > max_pixels:
            raise TooManyPixels(
                f"{image.width} × {image.height} pixels; the limit is {max_pixels:,} in all"
            )
        if shrink_to is not None:
            image.draft(None, (shrink_to, shrink_to))
        image.load()
        _turn_upright(image)
        return _rgb(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise TooManyPixels(str(error)) from error
    except DECODE_ERRORS as error:
        raise BrokenImage(f"{name} that cannot be decoded: {error}") from error


def _why_unknown(data: bytes) -> str:
    if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
        return "HEIC, which this installation does not read: it needs the extra gpq[heic]"
    return f"not an image of a format we read ({', '.join(formats())})"


def _turn_upright(image: Image.Image) -> None:
    with suppress(*DECODE_ERRORS):  # damaged EXIF says nothing about the pixels
        ImageOps.exif_transpose(image, in_place=True)


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode -> RGB: 16-bit grey / 257, ICC to sRGB, alpha over white."""
    icc_profile = image.info.get("icc_profile")
    transparency = image.info.get("transparency")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _grey16(image, transparency)
    elif image.mode == "RGB" and transparency and max(transparency) > 255:
        # A 16-bit key, where Pillow keeps the high bytes of the pixels.
        image.info["transparency"] = tuple(value >> 8 for value in transparency)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; save it with integers")
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode[:-1] + "A")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        alpha = rgba.getchannel("A")
        colour = _srgb(rgba.convert("RGB"), icc_profile)
        white = Image.new("RGB", image.size, "white")
        white.paste(colour, mask=alpha)
        return white
    return _srgb(image, icc_profile)


def _grey16(image: Image.Image, transparency: int | None) -> Image.Image:
    """16-bit grey -> L, or LA where one value is transparent."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit grey has no agreed range; save it with 16 bits")
    if getattr(image, "tag_v2", {}).get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:
        values = 65535 - values  # Pillow turns 8-bit ones round, but not these
    grey = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if transparency is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparency, 0, 255).astype(np.uint8)))
    return grey


def _srgb(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    if image.mode in ("1", "P"):
        image = image.convert("RGB")
    if icc_profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, *DECODE_ERRORS):
            pass  # a damaged or mismatched profile is ignored, as browsers do
    return image if image.mode == "RGB" else image.convert("RGB")
