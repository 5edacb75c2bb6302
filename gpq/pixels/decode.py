"""Uploaded bytes -> the checked, upright RGB image they show. The only definition.

What is hostile is refused before it costs much: formats by signature alone, pixels from
the header, scans and tiles before they are decoded.
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
SIGNATURE_BYTES = 64  # enough for any of them
AVIF_BRANDS = {b"avif", b"avis"}
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
MAX_JPEG_SCANS = 100  # a progressive file has about ten; each costs a pass over all pixels
JPEG_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
# What Pillow reads one by one before the picture begins, all Exif segments into one anew.
MAX_JPEG_EXIFS, MAX_JPEG_SEGMENTS, MAX_JPEG_JUNK_BYTES = 64, 10_000, 65_536
JPEG_EXIF, SCAN, FILL, STUFFED = b"Exif\0\0", 0xDA, 0xFF, 0x00
JPEG_ALONE = {0x01, *range(0xD0, 0xDA)}  # markers without a segment
MAX_PNG_CHUNKS = 10_000  # beside those of pixels
PNG_SIGNATURE_BYTES = 8
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
MAX_PNG_METADATA_BYTES = 16 * 2**20  # a colour profile, inflated
TIFF_TILE_WIDTH, TIFF_TILE_LENGTH = 322, 323  # TIFF 6.0, section 15

# What Pillow's decoders raise on damaged data, beside OSError.
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    AttributeError, RuntimeError, ArithmeticError, AssertionError, struct.error, zlib.error,
)  # fmt: skip


def limit_decoding(max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
    """Set process-wide limits; call once at start.

    Frames inside a container are held to the same limit as the first header, and what Pillow
    thinks of an upload's odd tags stays out of the log.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_PNG_METADATA_BYTES
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
    if brands := _brands(data):
        name = "AVIF" if brands & AVIF_BRANDS else "HEIF" if brands & HEIC_BRANDS else None
        return name if name in formats() and name in Image.OPEN else None
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


@dataclass(frozen=True)
class Decoded:
    """An upright image, mode RGB, in sRGB; width and height are those of the whole picture."""

    image: Image.Image
    width: int
    height: int


def load(
    data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, shrink_to: int | None = None
) -> Image.Image:
    """The image of ``decode``."""
    return decode(data, max_pixels, shrink_to).image


def decode(
    data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, shrink_to: int | None = None
) -> Decoded:
    """Uploaded bytes -> the first frame, upright, sRGB, mode RGB.

    shrink_to: a JPEG comes out at the smallest of 1/1, 1/2, 1/4 and 1/8 of its size where no
    side is smaller than this: its blocks are decoded to fewer pixels, which is much faster.

    Raises EmptyFile, UnknownFormat, TooManyPixels (from the header, before decoding) or
    BrokenImage; a truncated file is broken, never grey-filled.
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
            image = _over_nothing(image, tiles[0][1])
        if _turn_upright(image):
            width, height = height, width
        return Decoded(colour.to_srgb(image), width, height)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        count = re.search(r"\d+", str(error))  # Pillow's own limit is told as twice ours
        found = f"{int(count[0]):,}" if count else "too many"
        raise TooManyPixels(f"{found} pixels; the limit is {max_pixels:,} in all") from error
    except UnidentifiedImageError as error:
        raise BrokenImage(f"{name} that is damaged, or of a kind that is not read") from error
    except DECODE_ERRORS as error:
        raise BrokenImage(f"{name} that cannot be decoded: {error}") from error


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
    for what, (width, height) in (("", image.size), ("a tile of ", tile)):
        if width * height > max_pixels:
            raise TooManyPixels(
                f"{what}{width} × {height} pixels; the limit is {max_pixels:,} in all"
            )


def _brands(data: bytes) -> set[bytes]:
    """The brands of an ISO base media file (ISO/IEC 14496-12, 4.3), the major one too."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), SIGNATURE_BYTES, len(data))
    return {data[8:12]} | {data[place : place + 4] for place in range(16, end, 4)}


def _why_unknown(data: bytes) -> str:
    if _brands(data) & HEIC_BRANDS:
        return "HEIC, which this installation does not read: it needs the extra gpq[heic]"
    return f"not an image of a format we read ({', '.join(formats())})"


def _check_jpeg(data: bytes) -> None:
    """Raises ValueError for more of anything than a picture has."""
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
            raise ValueError(f"more than {MAX_JPEG_SEGMENTS:,} segments before the picture")
        if junk > MAX_JPEG_JUNK_BYTES:
            raise ValueError(f"more than {MAX_JPEG_JUNK_BYTES:,} bytes between its segments")


def _without_texts(data: bytes) -> bytes:
    """A PNG without its text chunks, which may be damaged or large and say nothing we need."""
    chunks = _png_chunks(data)
    if not any(kind in PNG_TEXTS for kind, _, _ in chunks):
        return data
    kept = [data[place:end] for kind, place, end in chunks if kind not in PNG_TEXTS]
    return data[:PNG_SIGNATURE_BYTES] + b"".join(kept)


def _png_chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """The kind of each, and where it begins and ends. Raises ValueError for more of them than a
    picture has."""
    chunks, place, others = [], PNG_SIGNATURE_BYTES, 0
    while place < len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = len(data) if kind == b"IEND" else place + 12 + length
        chunks.append((kind, place, end))
        others += kind != b"IDAT"
        if others > MAX_PNG_CHUNKS:
            raise ValueError(f"more than {MAX_PNG_CHUNKS:,} chunks beside its pixels")
        place = end
    return chunks


def _over_nothing(image: Image.Image, painted: tuple[int, int, int, int]) -> Image.Image:
    """What a GIF's first frame does not paint is transparent, whatever colour is there."""
    canvas = Image.new("RGBA", image.size, (0, 0, 0, 0))
    canvas.paste(image.convert("RGBA").crop(painted), painted)
    return canvas


def _turn_upright(image: Image.Image) -> bool:
    """Whether it lay on its side."""
    with suppress(*DECODE_ERRORS):  # damaged EXIF says nothing about the pixels
        on_its_side = image.getexif().get(ExifTags.Base.Orientation) in ON_ITS_SIDE
        ImageOps.exif_transpose(image, in_place=True)
        return on_its_side
    return False
