"""Decodes the bytes of an image file to an upright RGB image.

All code that reads images uses this module. It refuses hostile files before they cost much: it
checks the format by signature alone, the pixels by the header, and the number of scans, tiles and
chunks before it decodes them.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from gpq.errors import BrokenImage, EmptyFile, TooManyPixels, UnknownFormat
from gpq.pixels import colour, limits
from gpq.pixels.formats import signature, why_unknown
from gpq.pixels.orientation import ON_ITS_SIDE, TURNS, UPRIGHT, orientation

DEFAULT_MAX_PIXELS = 100_000_000
MAX_PNG_METADATA_BYTES = 16 * 2**20  # of an inflated colour profile
TIFF_TILE_WIDTH, TIFF_TILE_LENGTH = 322, 323  # TIFF 6.0, section 15

# Pillow's decoders raise all of these on damaged data.
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    AttributeError, RuntimeError, ArithmeticError, AssertionError, struct.error, zlib.error,
)  # fmt: skip


def limit_decoding(max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
    """Sets the limits of the whole process; call it once at start.

    The limit applies to every frame of a container, not only to the first header. Pillow's
    warnings about unusual tags are kept out of the log.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_PNG_METADATA_BYTES
    warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Decoded:
    """An upright image of mode RGB in sRGB.

    ``width``, ``height``: the size of the original image, which may be larger than ``image``.
    """

    image: Image.Image
    width: int
    height: int


def load(
    data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, shrink_to: int | None = None
) -> Image.Image:
    """Calls ``decode`` and returns only the image."""
    return decode(data, max_pixels, shrink_to).image


def decode(
    data: bytes,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    shrink_to: int | None = None,
    admit: Callable[[int], object] = lambda pixels: None,
) -> Decoded:
    """Decodes the first frame of an image file: upright, in sRGB, of mode RGB.

    ``shrink_to``: decodes a JPEG at the smallest of 1/1, 1/2, 1/4 and 1/8 of its size that leaves
    no side shorter than this. Decoding blocks to fewer pixels is much faster.
    ``admit`` is called with the number of pixels before they are decoded.

    Raises EmptyFile, UnknownFormat, TooManyPixels (from the header, before decoding) or
    BrokenImage. A truncated file raises BrokenImage; it is never filled up with grey.
    """
    if not data:
        raise EmptyFile(f"the file is empty: {why_unknown(data)}")
    name = signature(data)
    if name is None:
        raise UnknownFormat(why_unknown(data))
    try:
        image = _open(name, data)
        _check_pixels(image, max_pixels)
        limits.check_open(image, data)
        width, height = image.size
        admit(width * height)
        if shrink_to is not None:
            image.draft(None, (shrink_to, shrink_to))
        tiles = getattr(image, "tile", [])
        image.load()
        if name == "GIF" and tiles and tiles[0][1] != (0, 0, *image.size):
            image = _on_transparent(image, tiles[0][1])
        if _turn_upright(image):
            width, height = height, width
        return Decoded(colour.to_srgb(image), width, height)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        # Only the number of pixels is used: the limit in Pillow's message may be twice max_pixels.
        count = re.search(r"\d+", str(error))
        found = f"{int(count[0]):,}" if count else "too many"
        raise TooManyPixels(
            f"the image has {found} pixels; the limit is {max_pixels:,} in total"
        ) from error
    except UnidentifiedImageError as error:
        raise BrokenImage(f"the {name} file is damaged or of an unsupported kind") from error
    except DECODE_ERRORS as error:
        raise BrokenImage(f"the {name} file cannot be decoded: {error}") from error


def _open(name: str, data: bytes) -> Image.Image:
    limits.check(name, data)
    if name == "PNG":
        data = limits.without_texts(data)
    image = Image.open(io.BytesIO(data), formats=[name])
    if name == "PNG":
        colour.scale_key(image, bits=data[24])
    return image


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    tags = getattr(image, "tag_v2", {})
    tile = tags.get(TIFF_TILE_WIDTH, 0), tags.get(TIFF_TILE_LENGTH, 0)
    for what, (width, height) in (("the image", image.size), ("a tile", tile)):
        if width * height > max_pixels:
            raise TooManyPixels(
                f"{what} has {width} × {height} pixels; the limit is {max_pixels:,} in total"
            )


def _on_transparent(image: Image.Image, painted: tuple[int, int, int, int]) -> Image.Image:
    """Makes transparent the part of a GIF's screen that its first frame does not paint."""
    canvas = Image.new("RGBA", image.size, (0, 0, 0, 0))
    canvas.paste(image.crop(painted).convert("RGBA"), painted)
    return canvas


def _turn_upright(image: Image.Image) -> bool:
    """Applies the orientation, and returns whether it swaps width and height."""
    found = UPRIGHT
    with suppress(*DECODE_ERRORS):  # the pixels are usable even if the Exif data is damaged
        found = orientation(image)
    if found != UPRIGHT:
        image.im = image.im.transpose(TURNS[found])
        image._size = image.im.size
    return found in ON_ITS_SIDE
