import io
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageCms

from gpq.errors import BrokenImage, TooManyPixels, UnknownFormat
from gpq.pixels import decode
from gpq.pixels.decode import load
from harness.images import encoded, noise, quarters

CORNERS = {"red": (4, 4), "lime": (28, 4), "blue": (4, 28), "white": (28, 28)}
COLOURS = {
    "red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255),
}  # fmt: skip


def assert_quarters(image: Image.Image, tolerance: int = 0) -> None:
    assert image.mode == "RGB"
    for name, place in CORNERS.items():
        assert np.allclose(image.getpixel(place), COLOURS[name], atol=tolerance), name


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG", "AVIF"])
def test_every_format_gives_its_colours(format: str) -> None:
    lossless = {"WEBP": {"lossless": True}}.get(format, {})
    data = encoded(quarters(), format, **lossless)
    assert_quarters(load(data), tolerance=8 if format in ("JPEG", "AVIF") else 0)


TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    stored = quarters()
    if orientation in TRANSPOSED:
        stored = stored.transpose(TRANSPOSED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_quarters(load(encoded(stored, "PNG", exif=exif)))


def test_damaged_exif_does_not_cost_the_image() -> None:
    data = encoded(quarters(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert_quarters(load(data), tolerance=8)


def test_transparency_lies_over_white() -> None:
    image = quarters().convert("RGBA")
    image.putalpha(Image.new("L", (32, 32), 0))
    assert load(encoded(image)).getpixel((4, 4)) == (255, 255, 255)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    assert load(encoded(palette, transparency=1)).getpixel((4, 4)) == (255, 255, 255)
    assert load(encoded(palette, transparency=0)).getpixel((4, 4)) == (0, 255, 0)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    grey = np.asarray(load(encoded(Image.fromarray(ramp))))[..., 0]
    assert np.abs(grey.astype(float) - ramp / 257).max() <= 0.5


def test_a_transparent_value_of_sixteen_bits() -> None:
    ramp = np.full((8, 8), 4660, dtype=np.uint16)
    data = bytearray(encoded(Image.fromarray(ramp)))
    key = b"tRNS" + (4660).to_bytes(2, "big")
    chunk = (2).to_bytes(4, "big") + key + zlib.crc32(key).to_bytes(4, "big")
    place = data.index(b"IDAT") - 4
    data[place:place] = chunk
    assert load(bytes(data)).getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(mode: str) -> None:
    format = {"CMYK": "TIFF", "YCbCr": "JPEG"}.get(mode, "PNG")
    white = Image.new("RGB", (9, 9), "white").convert(mode)
    image = load(encoded(white, format))
    assert image.mode == "RGB"
    assert min(image.getpixel((4, 4))) >= 254


def test_icc_profile_is_applied_and_a_bad_one_ignored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert_quarters(load(encoded(quarters(), icc_profile=srgb)), tolerance=1)
    assert_quarters(load(encoded(quarters(), icc_profile=profile)))
    assert_quarters(load(encoded(quarters(), icc_profile=b"no profile")))


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (32, 32), "black")] * 20
    data = encoded(quarters(), "GIF", save_all=True, append_images=frames)
    assert_quarters(load(data))


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg></svg>", b"\x00" * 100, b"%PDF-1.7"])
def test_other_bytes_are_an_unknown_format(data: bytes) -> None:
    with pytest.raises(UnknownFormat, match="PNG"):
        load(data)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG", "AVIF"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_images_are_broken(format: str, share: float) -> None:
    data = encoded(noise(1, (200, 200)), format)
    with pytest.raises(BrokenImage, match=format):
        load(data[: max(16, int(len(data) * share))])


def test_truncated_progressive_jpeg_is_broken() -> None:
    data = encoded(noise(1, (200, 200)), "JPEG", progressive=True)
    with pytest.raises(BrokenImage):
        load(data[: len(data) // 2])


def test_pixels_are_limited_by_the_header_alone() -> None:
    header = bytearray(encoded(Image.new("1", (8, 8))))
    header[16:24] = (40_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    with pytest.raises(TooManyPixels, match="1,600,000,000 pixels; the limit is 100,000,000"):
        load(bytes(header))
    with pytest.raises(TooManyPixels):
        load(encoded(noise(1, (11, 10))), max_pixels=109)
    assert load(encoded(noise(1, (11, 10))), max_pixels=110).size == (11, 10)


def test_limits_hold_for_pillow_itself() -> None:
    old = Image.MAX_IMAGE_PIXELS
    try:
        decode.limit_decoding(100)
        with pytest.raises(TooManyPixels):
            load(encoded(noise(1, (11, 10))), max_pixels=10**9)
    finally:
        Image.MAX_IMAGE_PIXELS = old


def test_random_damage_is_an_image_error_or_an_image() -> None:
    random = np.random.default_rng(5)
    for format in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"):
        good = encoded(quarters(), format)
        for _ in range(60):
            data = bytearray(good)
            for place in random.integers(0, len(data), 4):
                data[place] = random.integers(0, 256)
            with suppress(BrokenImage, UnknownFormat, TooManyPixels):
                assert load(bytes(data), max_pixels=10**6).mode == "RGB"


def test_load_leaves_the_callers_bytes_alone() -> None:
    data = io.BytesIO(encoded(quarters())).getvalue()
    copy = bytes(data)
    load(data)
    assert data == copy
