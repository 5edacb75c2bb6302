"""Tells the format of an image file by its signature alone."""

from functools import cache

from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
SIGNATURE_BYTES = 64  # the signature of every format fits
AVIF_BRANDS = {b"avif", b"avis"}
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


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
        return name if name in formats() and _accepts(name, data) else None
    return next((name for name in formats() if _accepts(name, data)), None)


def media_type(data: bytes) -> str | None:
    """Returns the media type of the format whose signature ``data`` has, or None."""
    name = signature(data)
    return None if name is None else Image.MIME[name]


def why_unknown(data: bytes) -> str:
    """Says why ``data`` has none of the supported signatures."""
    if _brands(data) & HEIC_BRANDS:
        return "HEIC is not supported by this installation; install the extra gpq[heic]"
    return f"not an image of a supported format ({', '.join(formats())})"


def _accepts(name: str, data: bytes) -> bool:
    accept = Image.OPEN[name][1] if name in Image.OPEN else None
    # If Pillow was built without the format, accept returns a message instead of True.
    return accept is not None and accept(data[:SIGNATURE_BYTES]) is True


def _brands(data: bytes) -> set[bytes]:
    """Returns all brands of an ISO base media file (ISO/IEC 14496-12, 4.3)."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), SIGNATURE_BYTES, len(data))
    return {data[8:12]} | {data[place : place + 4] for place in range(16, end, 4)}
