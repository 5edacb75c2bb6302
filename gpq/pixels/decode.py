"""Decodes the bytes of an image file to an upright RGB image.

All code that reads images uses this module. It refuses hostile files before they cost much: it
checks the format by signature alone, the pixels by the header, and scans and tiles before it
decodes them.
"""

import io
import re
import struct
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from gpq.errors import BrokenImage, EmptyFile, TooManyPixels, UnknownFormat
from gpq.pixels import colour

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
DEFAULT_MAX_PIXELS = 100_000_000
ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF orientations that swap width and height
SIGNATURE_BYTES = 64  # the signature of every format fits
AVIF_BRANDS = {b"avif", b"avis"}
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
MAX_JPEG_SCANS = 100  # a progressive file has about ten; each costs a pass over all pixels
JPEG_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
# Pillow reads segments one by one before the image data, and joins all Exif segments again for
# each one that it reads.
MAX_JPEG_EXIFS, MAX_JPEG_SEGMENTS, MAX_JPEG_JUNK_BYTES = 64, 10_000, 65_536
JPEG_EXIF, SCAN, FILL, STUFFED = b"Exif\0\0", 0xDA, 0xFF, 0x00
JPEG_ALONE = {0x01, *range(0xD0, 0xDA)}  # markers without a segment
MAX_PNG_CHUNKS = 10_000  # not counting chunks of pixels
PNG_SIGNATURE_BYTES = 8
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
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


@cache
def formats() -> tuple[str, ...]:
    """Returns FORMATS, and also HEIF if the extra ``heic`` is installed."""
    Image.init()
    try:
        import pillow_heif
    except ImportError:
        return FORMATS
    pillow_heif.register_heif_opener(thumbnails=False)
    return (*FORMATS, "HEIF")


def signature(data: bytes) -> str | None:
    """Returns the supported format whose signature ``data`` has, or None."""
    if brands := _brands(data):
        name = "AVIF" if brands & AVIF_BRANDS else "HEIF" if brands & HEIC_BRANDS else None
        return name if name in formats() and name in Image.OPEN else None
    for name in formats():
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        # If Pillow was built without the format, accept returns a message instead of True.
        if accept is not None and accept(data[:SIGNATURE_BYTES]) is True:
            return name
    return None


def media_type(data: bytes) -> str | None:
    """Returns the media type of the format whose signature ``data`` has, or None."""
    name = signature(data)
    return None if name is None else Image.MIME[name]


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
    data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, shrink_to: int | None = None
) -> Decoded:
    """Decodes the first frame of an image file: upright, in sRGB, of mode RGB.

    ``shrink_to``: decodes a JPEG at the smallest of 1/1, 1/2, 1/4 and 1/8 of its size that leaves
    no side shorter than this. Decoding blocks to fewer pixels is much faster.

    Raises EmptyFile, UnknownFormat, TooManyPixels (from the header, before decoding) or
    BrokenImage. A truncated file raises BrokenImage; it is never filled up with grey.
    """
    if not data:
        raise EmptyFile(f"the file is empty: {_why_unknown(data)}")
    name = signature(data)
    if name is None:
        raise UnknownFormat(_why_unknown(data))
    try:
        image = _open(name, data)
        _check_pixels(image, max_pixels)
        width, height = image.size
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
    if name == "JPEG":
        _check_jpeg(data)
    if name == "PNG":
        data = _without_texts(data)
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


def _brands(data: bytes) -> set[bytes]:
    """Returns all brands of an ISO base media file (ISO/IEC 14496-12, 4.3)."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), SIGNATURE_BYTES, len(data))
    return {data[8:12]} | {data[place : place + 4] for place in range(16, end, 4)}


def _why_unknown(data: bytes) -> str:
    if _brands(data) & HEIC_BRANDS:
        return "HEIC is not supported by this installation; install the extra gpq[heic]"
    return f"not an image of a supported format ({', '.join(formats())})"


def _check_jpeg(data: bytes) -> None:
    """Raises ValueError if the file has more scans or segments than a real image has."""
    if sum(1 for _ in JPEG_SCAN.finditer(data)) > MAX_JPEG_SCANS:
        raise ValueError(f"more than {MAX_JPEG_SCANS} scans")
    if data.count(JPEG_EXIF) > MAX_JPEG_EXIFS:
        raise ValueError(f"more than {MAX_JPEG_EXIFS} Exif segments")
    segments = junk = place = 0
    while (marker := data.find(b"\xff", place, -3)) >= 0:
        junk += marker - place
        kind = data[marker + 1]
        if kind == SCAN:
            return
        if kind == FILL:
            junk, place = junk + 1, marker + 1
        elif kind == STUFFED:
            junk, place = junk + 2, marker + 2
        elif kind in JPEG_ALONE:
            segments, place = segments + 1, marker + 2
        else:
            length = int.from_bytes(data[marker + 2 : marker + 4], "big")
            segments, place = segments + 1, marker + 2 + max(2, length)
        if segments > MAX_JPEG_SEGMENTS:
            raise ValueError(f"more than {MAX_JPEG_SEGMENTS:,} segments before the image data")
        if junk > MAX_JPEG_JUNK_BYTES:
            raise ValueError(f"more than {MAX_JPEG_JUNK_BYTES:,} bytes between its segments")


def _without_texts(data: bytes) -> bytes:
    """Returns a PNG without its text chunks, which may be damaged or large and are not needed."""
    chunks = _png_chunks(data)
    if not any(kind in PNG_TEXTS for kind, _, _ in chunks):
        return data
    kept = [data[place:end] for kind, place, end in chunks if kind not in PNG_TEXTS]
    return data[:PNG_SIGNATURE_BYTES] + b"".join(kept)


def _png_chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """Returns the kind, the beginning and the end of each chunk.

    Raises ValueError if the file has more chunks than a real image has.
    """
    chunks, place, others = [], PNG_SIGNATURE_BYTES, 0
    while place < len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = len(data) if kind == b"IEND" else place + 12 + length
        chunks.append((kind, place, end))
        others += kind != b"IDAT"
        if others > MAX_PNG_CHUNKS:
            raise ValueError(f"more than {MAX_PNG_CHUNKS:,} chunks besides those of pixels")
        place = end
    return chunks


def _on_transparent(image: Image.Image, painted: tuple[int, int, int, int]) -> Image.Image:
    """Makes transparent the part of a GIF's screen that its first frame does not paint."""
    canvas = Image.new("RGBA", image.size, (0, 0, 0, 0))
    canvas.paste(image.convert("RGBA").crop(painted), painted)
    return canvas


def _turn_upright(image: Image.Image) -> bool:
    """Applies the EXIF orientation, and returns whether it swaps width and height."""
    with suppress(*DECODE_ERRORS):  # the pixels are usable even if the EXIF data is damaged
        on_its_side = image.getexif().get(ExifTags.Base.Orientation) in ON_ITS_SIDE
        ImageOps.exif_transpose(image, in_place=True)
        return on_its_side
    return False
