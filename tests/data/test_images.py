import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lookaround.data.images import check_image, find_images, flatten, is_grey, open_image, to_pixels
from lookaround.errors import ArgumentError, DataError


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    path = save(tmp_path / "wide.png", Image.fromarray(values))
    assert to_pixels(open_image(path), 1).tolist() == [[[0, 1, 128, 255]]]
    assert is_grey(path)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_every_wide_grey_mode_is_scaled(mode):
    values = np.array([[0, 65535]], dtype={"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode])
    image = Image.frombytes(mode, (2, 1), values.tobytes())
    assert to_pixels(image, 1).tolist() == [[[0, 255]]]


def test_palette_becomes_its_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50] + [0] * 762)
    image.putdata([0, 1])
    pixels = to_pixels(open_image(save(tmp_path / "p.png", image)), 3)
    assert pixels[:, 0, 0].tolist() == [10, 20, 30]
    assert pixels[:, 0, 1].tolist() == [200, 100, 50]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_laid_over_white(tmp_path, mode):
    image = Image.new(mode, (2, 1), (0,) * len(mode))
    image.putpixel((1, 0), (40,) * (len(mode) - 1) + (255,))
    pixels = to_pixels(open_image(save(tmp_path / "a.png", image)), 3)
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert pixels[:, 0, 1].tolist() == [40, 40, 40]


def test_transparent_palette_entry_is_laid_over_white(tmp_path):
    image = Image.new("P", (1, 1))
    image.putpalette([10, 20, 30] + [0] * 765)
    path = save(tmp_path / "t.png", image, transparency=0)
    assert to_pixels(open_image(path), 3).flatten().tolist() == [255, 255, 255]


def test_cmyk_becomes_rgb(tmp_path):
    path = save(tmp_path / "c.jpg", Image.new("CMYK", (8, 8), (255, 0, 0, 0)), quality=100)
    red, green, blue = to_pixels(open_image(path), 3)[:, 4, 4].tolist()
    assert red < 10
    assert green > 245
    assert blue > 245


@pytest.mark.parametrize("mode", ["1", "LAB", "HSV", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_modes_convert(mode, channels):
    assert to_pixels(Image.new(mode, (3, 2)), channels).shape == (channels, 2, 3)


def test_camera_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (4, 2), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to be upright
    path = save(tmp_path / "r.jpg", image, exif=exif)
    assert open_image(path).size == (2, 4)


def test_pixels_are_not_shared_with_the_picture():
    image = Image.new("L", (2, 2))
    pixels = to_pixels(image, 1)
    pixels += 1
    assert image.getpixel((0, 0)) == 0
    assert pixels.dtype == torch.uint8


def test_channels_must_be_one_or_three():
    with pytest.raises(ArgumentError, match=r"in_channels must be 1 \(grey\) or 3 \(RGB\); got 2"):
        to_pixels(Image.new("L", (1, 1)), 2)


def test_float_pictures_are_refused(tmp_path):
    path = save(tmp_path / "f.tif", Image.new("F", (2, 2)))
    for function in (open_image, check_image):
        with pytest.raises(DataError, match=r"f\.tif'.\n  reason: .*8 or 16 bits a channel"):
            function(path)


def test_wide_values_beyond_16_bits_are_refused():
    with pytest.raises(DataError, match="values of 0 to 65535; got values from -1 to"):
        flatten(Image.frombytes("I", (2, 1), np.array([-1, 70000], dtype="<i4").tobytes()))


def test_missing_file():
    with pytest.raises(DataError, match=r"must exist; got 'nowhere\.png'"):
        open_image("nowhere.png")


def test_text_with_an_images_name(tmp_path):
    path = tmp_path / "text.png"
    path.write_text("no image")
    for function in (open_image, check_image, is_grey):
        with pytest.raises(DataError, match=r"must be an image that can be decoded; got '.*text\.png'"):
            function(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".gif", ".tif", ".ppm", ".webp"])
def test_truncated_files_are_found_by_a_look(tmp_path, make_picture, suffix):
    path = save(tmp_path / f"cut{suffix}", make_picture(0, (64, 64)))
    path.write_bytes(path.read_bytes()[:-600])
    for function in (open_image, check_image):
        with pytest.raises(DataError, match=r"can be decoded; got '.*cut\."):
            function(path)


def test_jpeg_with_data_of_the_cameras_own_at_its_end_is_fine(tmp_path, make_picture):
    path = save(tmp_path / "long.jpg", make_picture(0))
    path.write_bytes(path.read_bytes() + bytes(5000))
    check_image(path)
    assert open_image(path).size == (12, 10)


def bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )


def test_a_decompression_bomb_is_not_followed(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb())
    for function in (open_image, check_image):
        with pytest.raises(DataError, match=r"safe to decode; got '.*bomb\.png'"):
            function(path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_damaged_files_give_a_picture_or_a_data_error(tmp_path, make_picture, form):
    buffer = io.BytesIO()
    make_picture(3, (24, 16)).save(buffer, form)
    whole = buffer.getvalue()
    numbers = random.Random(0)
    path = tmp_path / "damaged.png"
    outcomes, complaints = set(), []
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(numbers.choice([1, 4, 30])):
            data[numbers.randrange(min(len(data), numbers.choice([40, 10**6])))] = numbers.randrange(256)
        path.write_bytes(data[: numbers.choice([len(data), numbers.randrange(len(data))])])
        try:
            outcomes.add(open_image(path).mode)
        except DataError as error:
            complaints.append(str(error))
    assert outcomes <= {"L", "RGB"}
    assert complaints
    assert all("damaged.png" in complaint for complaint in complaints)


def test_find_images_is_sorted_recursive_and_skips_hidden_names(tmp_path):
    for name in ("b/2.PNG", "b/1.jpg", "a.jpeg", "c.txt", ".hidden.png", ".folder/x.png", "b/inner/z.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    found = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]
    assert found == ["a.jpeg", "b/1.jpg", "b/2.PNG", "b/inner/z.webp"]
