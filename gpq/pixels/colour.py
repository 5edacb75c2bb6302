"""Converts an image of any Pillow mode to RGB in sRGB, over white and without clipping."""

import io
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

TIFF_BITS, TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, section 3
ROWS_AT_A_TIME = 256
PIXELS_AT_A_TIME = 4_000_000
# A damaged or mismatched profile is ignored, as browsers do.
PROFILE_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def to_srgb(image: Image.Image) -> Image.Image:
    """Divides 16-bit grey by 257, converts ICC profiles to sRGB and composites alpha over white.

    Raises ValueError if the pixels have no agreed range.
    """
    icc_profile = image.info.get("icc_profile")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; save the image with integers")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _grey16(image)
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode[:-1] + "A")
    if image.mode == "RGBA" and image.format == "BMP" and not image.getchannel("A").getbbox():
        image = image.convert("RGB")  # the writer left the fourth byte unused
    if image.mode not in ("LA", "PA", "RGBA") and "transparency" not in image.info:
        if image.mode in ("1", "P"):
            image = image.convert("RGB")
        return _srgb(image, _transform(icc_profile, image.mode))
    return _over_white(image, icc_profile)


def scale_key(image: Image.Image, bits: int) -> None:
    """Scales the transparent colour of a PNG from ``bits`` to 8 bits.

    Pillow scales the samples of the image, but not this colour.
    """
    key = image.info.get("transparency")
    if isinstance(key, int) and image.mode in ("1", "L") and bits < 8:
        image.info["transparency"] = key * (255 // (2**bits - 1))
    elif isinstance(key, tuple) and bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _grey16(image: Image.Image) -> Image.Image:
    """Converts 16-bit grey to L, or to LA if one value is transparent."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit grey has no agreed range; save the image with 16 bits")
    tags, key = getattr(image, "tag_v2", {}), image.info.get("transparency")
    grey = np.empty(values.shape, dtype=np.uint8)
    alpha = None if key is None else np.empty(values.shape, dtype=np.uint8)
    for first in range(0, len(values), ROWS_AT_A_TIME):  # keeps temporary arrays small
        part = values[first : first + ROWS_AT_A_TIME].astype(np.uint32)
        grey[first : first + ROWS_AT_A_TIME] = _to_8_bits(part, tags)
        if alpha is not None:
            alpha[first : first + ROWS_AT_A_TIME] = (part != key) * np.uint8(255)
    made = Image.fromarray(grey)
    if alpha is not None:
        made.putalpha(Image.fromarray(alpha))
    return made


def _to_8_bits(values: NDArray[np.uint32], tags: dict[int, object]) -> NDArray[np.uint32]:
    if tags.get(TIFF_BITS) == (12,):
        values = (values << np.uint32(4)) | (values >> np.uint32(8))
    if tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:
        values = np.uint32(65535) - values  # Pillow inverts only 8-bit values
    return (values + np.uint32(128)) // np.uint32(257)


def _over_white(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """Composites alpha over white, a part of the rows at a time: one full copy, not four."""
    mode = "LA" if image.mode in ("L", "LA") else "RGBA"
    transform = _transform(icc_profile, "L" if mode == "LA" else "RGB")
    white = Image.new("RGB", image.size, "white")
    rows = max(1, PIXELS_AT_A_TIME // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        *bands, alpha = image.crop(box).convert(mode).split()
        colour = bands[0] if len(bands) == 1 else Image.merge("RGB", bands)
        white.paste(_srgb(colour, transform), box, mask=alpha)
    return white


def _srgb(image: Image.Image, transform: ImageCms.ImageCmsTransform | None) -> Image.Image:
    if transform is not None:
        with suppress(*PROFILE_ERRORS):
            converted = ImageCms.applyTransform(image, transform)
            if converted is not None:
                return converted
    return image if image.mode == "RGB" else image.convert("RGB")


def _transform(icc_profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Returns a transform from the profile to sRGB; None if the profile cannot be used."""
    if not icc_profile:
        return None
    with suppress(*PROFILE_ERRORS):
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        target = ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(source, target, mode, "RGB")
    return None
