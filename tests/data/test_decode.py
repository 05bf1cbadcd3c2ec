"""Decoding: all decoders give the same pixels, every kind of image becomes RGB, damage names the record."""

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from csbp_jax.config import ConfigError
from csbp_jax.data.images import decode
from tests.support import hostile_files
from tests.support.formats import cmyk, encoded, photo, saved

PIXELS = photo(0)
GREY = PIXELS[..., 0]
DECODERS = list(dict.fromkeys([decode.by_pillow, decode.FASTEST]))
EXIF = Image.Exif()
EXIF[0x112] = 6  # to be displayed rotated by 90 degrees


@pytest.fixture(params=DECODERS, ids=lambda decoder: decoder.__name__)
def decoder(request):
    return request.param


JPEGS = {
    "baseline": encoded(PIXELS, quality=95),
    "no subsampling": encoded(PIXELS, quality=95, subsampling=0),
    "progressive": encoded(PIXELS, quality=95, progressive=True),
    "rotated by EXIF": encoded(PIXELS, quality=95, exif=EXIF),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_jpeg(decoder, kind):
    pixels = decode.decode(JPEGS[kind], "a", decoder)
    assert pixels.dtype == np.uint8 and pixels.shape == PIXELS.shape
    assert np.abs(pixels.astype(int) - PIXELS).mean() < 3
    np.testing.assert_array_equal(pixels, decode.by_pillow(JPEGS[kind]))


def test_grey_jpeg(decoder):
    pixels = decode.decode(encoded(GREY, quality=95), "a", decoder)
    np.testing.assert_array_equal(pixels, np.repeat(pixels[..., :1], 3, -1))
    assert np.abs(pixels[..., 0].astype(int) - GREY).max() < 8


def test_cmyk_jpeg(decoder):
    pixels = decode.decode(cmyk(PIXELS), "a", decoder)
    assert np.abs(pixels.astype(int) - PIXELS).mean() < 4


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_png_whatever_its_name(decoder, kind):
    image = Image.fromarray(PIXELS).convert(kind)
    pixels = decode.decode(saved(image.save, "PNG"), "a.JPEG", decoder)
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


def damaged():
    intact, progressive, png = JPEGS["baseline"], JPEGS["progressive"], encoded(PIXELS, "PNG")
    return {
        "empty": b"",
        "garbage": bytes(range(256)) * 4,
        "half": intact[: len(intact) // 2],
        "no end": intact[:-2],
        "header": intact[:100],
        "broken stream": intact[:-200] + b"\xff\x13" + intact[-198:],
        "half progressive": progressive[: len(progressive) // 2],
        "half PNG": png[: len(png) // 2],
        "text": b"<html>404</html>",
    }


@pytest.mark.parametrize("name", hostile_files.PICTURES)
def test_pictures_from_others_are_refused(decoder, name, tmp_path):
    content, message = hostile_files.PICTURES[name]
    with pytest.raises(ConfigError, match=rf"^a: .*{message}"):
        decode.decode(content, "a", decoder)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^{tmp_path / name}: .*{message}"):
        decode.picture_shape(tmp_path / name)


def test_no_picture_starts_a_program(decoder, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **options: pytest.fail("it would start gs"))
    with pytest.raises(ConfigError, match="not an image in one of the formats"):
        decode.decode(hostile_files.EPS, "a", decoder)


@pytest.mark.parametrize("form", decode.FORMATS)
def test_formats_that_are_read(form, decoder):
    pixels = decode.decode(saved(Image.fromarray(PIXELS).save, form), "a.png", decoder)
    assert pixels.shape == PIXELS.shape and np.abs(pixels.astype(int) - PIXELS).mean() < 12


@pytest.mark.parametrize("kind", damaged())
def test_damage_names_the_record(decoder, kind):
    with pytest.raises(ConfigError, match=r"^n01440764_10.JPEG: cannot be decoded \([^\n]+\); fetch it again$"):
        decode.decode(damaged()[kind], "n01440764_10.JPEG", decoder)


def test_a_small_fault_is_repaired(decoder):
    intact = JPEGS["baseline"]
    np.testing.assert_array_equal(
        decode.decode(intact[:-2] + b"\x01\x02" + intact[-2:], "a", decoder), decode.by_pillow(intact)
    )


def test_sixteen_bits_are_rejected(decoder):
    with pytest.raises(
        ConfigError,
        match=r"a: cannot be decoded \(it has more than 8 bits per channel\); save it smaller, with 8 bits",
    ):
        decode.decode(encoded(GREY.astype(np.uint16) * 257, "PNG"), "a", decoder)


def test_any_cut_or_flipped_byte_is_decoded_or_rejected(decoder):
    intact, random = JPEGS["baseline"], np.random.default_rng(0)
    for at in random.integers(0, len(intact), 200):
        for data in (intact[:at], intact[:at] + bytes([intact[at] ^ 0xFF]) + intact[at + 1 :]):
            try:
                pixels = decode.decode(data, "a", decoder)
            except ConfigError as error:
                assert "\n" not in str(error)
            else:
                assert pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.dtype == np.uint8
