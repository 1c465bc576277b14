"""Photos on disk: folders, headers, pixels of every kind of file, masks."""

import io
import os
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from gim_sfm import images
from gim_sfm.errors import InputError
from gim_sfm.images import (
    ImageFolder,
    is_unchanged,
    keep_unmasked,
    mask_path,
    masks_missing,
    read_header,
    read_mask,
    read_photo,
    read_signed_photo,
    signature,
)


def texture(width: int, height: int, channels: int = 3) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    layers = [128 + 60 * np.sin(x / (9 + k) + k) + 50 * np.cos(y / (7 + k)) for k in range(channels)]
    return np.dstack(layers).astype(np.uint8)


def saved(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(pixels.squeeze())
    (image.convert(mode) if mode else image).save(path, **options)
    return path


# Folders


def make_files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_a_folder_lists_its_photos_in_order(tmp_path):
    accented = unicodedata.normalize("NFC", "Gemälde ß.tiff")
    root = make_files(
        tmp_path, "b.JPG", "a/c d.png", "a/b/e.WebP", accented, "10.jpeg", "notes.txt", "a/Thumbs.db",
        ".DS_Store", "a/._c d.png", ".thumbnails/b.jpg", "c.jpg.txt",
    )  # fmt: skip
    folder = ImageFolder.scan(root)
    assert folder.names == ("10.jpeg", accented, "a/b/e.WebP", "a/c d.png", "b.JPG")
    assert folder.ignored == ("a/Thumbs.db", "c.jpg.txt", "notes.txt")
    assert folder.path("a/c d.png") == root / "a" / "c d.png"


def test_links_are_followed_once(tmp_path):
    root = make_files(tmp_path / "root", "a.jpg")
    make_files(tmp_path / "elsewhere", "b.jpg")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "circle").symlink_to(root)
    assert ImageFolder.scan(root).names == ("a.jpg", "linked/b.jpg")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "is empty"),
        (["a.heic", "b.HEIC", "c.txt"], r"no photo: 3 files with suffix \.heic, \.txt"),
        (["a/b.jpg", "a-b.jpg"], r"a-b\.jpg and a/b\.jpg cannot be told apart"),
        (["a\nb.jpg"], r"'a\\nb\.jpg' holds characters"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, names, message):
    with pytest.raises(InputError, match=message) as caught:
        ImageFolder.scan(make_files(tmp_path, *names))
    assert caught.value.remedy


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        ImageFolder.scan(tmp_path / "missing")
    make_files(tmp_path, "a.jpg")
    with pytest.raises(InputError, match="is a file"):
        ImageFolder.scan(tmp_path / "a.jpg")


# Pixels


@settings(deadline=None, max_examples=40)
@given(width=st.integers(1, 97), height=st.integers(1, 97), longest=st.one_of(st.none(), st.integers(1, 120)))
def test_reduction_is_exact_and_least(width, height, longest):
    data = io.BytesIO()
    Image.fromarray(texture(width, height)).save(data, "JPEG")
    photo = images._decode(data.getvalue(), Path("x.jpg"), longest)
    assert photo.size == (width, height)
    assert photo.reduction in (1, 2, 4, 8)
    assert photo.pixels.shape == (-(-height // photo.reduction), -(-width // photo.reduction), 3)
    if longest is not None:
        assert photo.reduction == 1 or max(photo.pixels.shape) >= longest
        smaller = photo.reduction * 2
        assert smaller > 8 or max(width, height) // smaller < longest or min(width, height) < smaller
    else:
        assert photo.reduction == 1


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_a_reduced_pixel_covers_its_block(tmp_path, reduction):
    path = saved(tmp_path / "a.jpg", texture(400, 296), quality=95)
    full = read_photo(path).pixels.astype(float)
    reduced = read_photo(path, longest=400 // reduction)
    assert reduced.reduction == reduction
    height, width = 296 // reduction, 400 // reduction
    blocks = full.reshape(height, reduction, width, reduction, 3).mean((1, 3))
    error = np.abs(reduced.pixels - blocks)
    assert error.mean() < 4
    for shift in (-1, 1):
        shifted = np.abs(np.roll(reduced.pixels, shift, axis=1) - blocks)[:, 2:-2]
        assert shifted.mean() > 1.2 * error[:, 2:-2].mean()


def test_pixels_can_be_written_to(tmp_path):
    pixels = read_photo(saved(tmp_path / "a.png", texture(5, 4))).pixels
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_lossless_kinds_come_back_exactly(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", texture(31, 17), **options)
    photo = read_photo(path, longest=4)
    np.testing.assert_array_equal(photo.pixels, texture(31, 17))
    assert (photo.size, photo.reduction) == ((31, 17), 1)


def test_grey_is_repeated(tmp_path):
    grey = texture(20, 10, 1)
    for path in (saved(tmp_path / "g.png", grey), saved(tmp_path / "g.pgm", grey)):
        np.testing.assert_array_equal(read_photo(path).pixels, np.repeat(grey, 3, axis=2))
    assert read_photo(saved(tmp_path / "g.jpg", grey)).pixels.shape == (10, 20, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "L"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_modes_become_rgb(tmp_path, mode, suffix):
    path = saved(tmp_path / f"a.{suffix}", texture(20, 10), mode)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_photo(path).pixels, expected)


def test_alpha_is_dropped_not_blended(tmp_path):
    pixels = np.dstack([texture(20, 10), np.zeros((10, 20), np.uint8)])
    np.testing.assert_array_equal(read_photo(saved(tmp_path / "a.png", pixels)).pixels, pixels[..., :3])


def test_a_palette_with_transparency(tmp_path):
    image = Image.fromarray(texture(20, 10)).quantize(16)
    image.save(tmp_path / "a.png", transparency=bytes(range(16)))
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png").pixels, expected)


def test_cmyk(tmp_path):
    path = saved(tmp_path / "a.jpg", texture(64, 48), "CMYK", quality=95)
    photo = read_photo(path)
    assert np.abs(photo.pixels.astype(int) - texture(64, 48)).mean() < 8
    assert read_photo(path, longest=16).reduction == 4


@pytest.mark.parametrize("suffix", ["png", "tiff", "ppm"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_deep_photos_keep_their_brightness(tmp_path, suffix, bits):
    eight = texture(20, 10)
    eight[0, 0] = 255
    deep = eight.astype(np.uint16) << (bits - 8)
    for name, layers in (("colour", deep[..., ::-1]), ("grey", deep[..., 0])):
        path = tmp_path / f"{name}.{'pgm' if (name, suffix) == ('grey', 'ppm') else suffix}"
        assert cv2.imwrite(str(path), layers)
        expected = eight if name == "colour" else np.repeat(eight[..., :1], 3, axis=2)
        np.testing.assert_array_equal(read_photo(path).pixels, expected)


def test_deep_photos_with_alpha(tmp_path):
    deep = np.dstack([texture(20, 10), np.full((10, 20), 255, np.uint8)]).astype(np.uint16) << 8
    deep[0, 0, :3] = 65535
    for suffix in ("png", "tiff"):
        assert cv2.imwrite(str(tmp_path / f"a.{suffix}"), deep)
        found = read_photo(tmp_path / f"a.{suffix}").pixels
        np.testing.assert_array_equal(found, (deep[..., 2::-1] >> 8).astype(np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "deep"), [("jpg", False), ("png", False), ("tif", False), ("webp", False), ("tif", True)]
)
def test_exif_orientation_is_ignored(tmp_path, orientation, suffix, deep):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = texture(40, 24, 1) if deep else texture(40, 24)
    stored = (pixels.astype(np.uint16) << 8) | 255 if deep else pixels
    stored[0, 0] = 65535 if deep else stored[0, 0]
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", stored, exif=exif, **options)
    photo = read_photo(path)
    assert photo.size == read_header(path).size == (40, 24)
    difference = np.abs(photo.pixels.astype(int) - (pixels if not deep else stored >> 8))
    assert difference.mean() < (6 if suffix == "jpg" else 0.01)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_broken_photos_are_named(tmp_path, suffix):
    whole = saved(tmp_path / f"whole.{suffix}", texture(300, 200)).read_bytes()
    broken = {
        "zero": b"",
        "cut": whole[: len(whole) // 2],
        "header": whole[:12],
        "text": b"this is no photo",
        "noise": bytes(range(256)) * 9,
    }
    for name, content in broken.items():
        path = tmp_path / f"{name}.{suffix}"
        path.write_bytes(content)
        for longest in (None, 64):
            with pytest.raises(InputError, match=rf"{name}\.{suffix}") as caught:
                read_photo(path, longest=longest)
            assert caught.value.remedy


def test_broken_deep_photos_are_named(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), texture(300, 200).astype(np.uint16) * 256)
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"a\.png"):
        read_photo(tmp_path / "a.png")


def test_pixels_without_a_known_range(tmp_path):
    path = saved(tmp_path / "a.tif", np.zeros((4, 5), np.float32))
    with pytest.raises(InputError, match=r"a\.tif.*32 bits"):
        read_photo(path)


def test_missing_photos_are_named(tmp_path):
    for reader in (read_photo, read_header, signature):
        with pytest.raises(InputError, match=r"missing\.jpg"):
            reader(tmp_path / "missing.jpg")


def test_the_name_does_not_decide_the_kind(tmp_path):
    path = saved(tmp_path / "a.jpg", texture(8, 8), format="PNG")
    np.testing.assert_array_equal(read_photo(path).pixels, texture(8, 8))


def test_large_photos_are_read_and_monstrous_ones_refused(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", texture(300, 200))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_photo(path).size == (300, 200)
    assert read_header(path).size == (300, 200)
    assert Image.MAX_IMAGE_PIXELS == 100
    monkeypatch.setattr(images, "MOST_PIXELS", 59_999)
    with pytest.raises(InputError, match="300 x 200"):
        read_photo(path)
    photo = saved(tmp_path / "a.jpg", texture(300, 200))
    assert read_photo(photo, longest=100).reduction == 2


# Headers


def exif_photo(path: Path, size: tuple[int, int] = (300, 200), **tags: object) -> Path:
    exif = Image.Exif()
    inner, gps = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
    for name, value in tags.items():
        if name.startswith("GPS"):
            gps[ExifTags.GPS[name]] = value
        elif name in ("Make", "Model"):
            exif[ExifTags.Base[name]] = value
        else:
            inner[ExifTags.Base[name]] = value
    return saved(path, texture(*size), exif=exif)


def test_header_without_exif(tmp_path):
    header = read_header(saved(tmp_path / "a.png", texture(31, 17)))
    assert (header.size, header.focal_px, header.gps) == ((31, 17), None, None)
    assert header.camera_key == "|||31x17"


def test_focal_length_from_the_film_equivalent(tmp_path):
    header = read_header(exif_photo(tmp_path / "a.jpg", FocalLengthIn35mmFilm=36))
    assert header.focal_px == pytest.approx(300)  # 3:2, like the film: the width is 36 mm
    narrow = read_header(exif_photo(tmp_path / "b.jpg", (400, 300), FocalLengthIn35mmFilm=43))
    assert narrow.focal_px == pytest.approx(500 * 43 / 43.2666, rel=1e-4)


@pytest.mark.parametrize(("unit", "per_unit"), [(2, 254.0), (3, 100.0), (4, 10.0)])
def test_focal_length_from_the_sensor(tmp_path, unit, per_unit):
    tags = {"FocalLength": 24.0, "FocalPlaneXResolution": per_unit, "FocalPlaneResolutionUnit": unit}
    assert read_header(exif_photo(tmp_path / "a.jpg", **tags)).focal_px == pytest.approx(240)
    tags |= {"ExifImageWidth": 600, "ExifImageHeight": 400}
    assert read_header(exif_photo(tmp_path / "b.jpg", **tags)).focal_px == pytest.approx(120)


@pytest.mark.parametrize(
    "tags", [{"FocalLengthIn35mmFilm": 0}, {"FocalLength": 24.0}, {"FocalLengthIn35mmFilm": 60000}]
)
def test_focal_lengths_that_say_nothing(tmp_path, tags):
    assert read_header(exif_photo(tmp_path / "a.jpg", **tags)).focal_px is None


def test_camera_keys(tmp_path):
    tags = {"Make": "Maker\0", "Model": "M|1 ", "FocalLength": 4.25}
    assert read_header(exif_photo(tmp_path / "a.jpg", **tags)).camera_key == "Maker|M/1|4.25mm|300x200"
    others = [tags | {"FocalLength": 5.0}, tags | {"Model": "M2"}, {}]
    keys = {read_header(exif_photo(tmp_path / "b.jpg", **other)).camera_key for other in others}
    assert len(keys) == 3


POSITION = {
    "GPSLatitudeRef": "S",
    "GPSLatitude": (33.0, 51.0, 25.2),
    "GPSLongitudeRef": "E",
    "GPSLongitude": (151.0, 12.0, 36.0),
}


def test_gps(tmp_path):
    gps = read_header(exif_photo(tmp_path / "a.jpg", **POSITION)).gps
    assert gps == (pytest.approx(-33.857), pytest.approx(151.21), None)
    deep = POSITION | {"GPSAltitude": 12.5, "GPSAltitudeRef": b"\1", "GPSLongitudeRef": "W"}
    gps = read_header(exif_photo(tmp_path / "b.jpg", **deep)).gps
    assert gps == (pytest.approx(-33.857), pytest.approx(-151.21), -12.5)


@pytest.mark.parametrize(
    "change",
    [
        {"GPSLatitude": (0.0, 0.0, 0.0), "GPSLongitude": (0.0, 0.0, 0.0)},
        {"GPSLatitude": (133.0, 0.0, 0.0)},
        {"GPSLatitude": (33.0, 0.0)},
    ],
)
def test_gps_without_a_fix(tmp_path, change):
    assert read_header(exif_photo(tmp_path / "a.jpg", **(POSITION | change))).gps is None


def test_headers_of_broken_photos(tmp_path):
    for name, content in {"zero.jpg": b"", "text.png": b"hello"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read_header(tmp_path / name)


# Signatures


def test_signatures_follow_the_content(tmp_path):
    path = saved(tmp_path / "a.png", texture(20, 10))
    photo, signed = read_signed_photo(path)
    assert signed == signature(path)
    assert photo.size == (20, 10)
    assert is_unchanged(path, signed)
    os.utime(path, ns=(1, 1))
    assert is_unchanged(path, signed)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(2, 2))
    assert not is_unchanged(path, signed)
    path.write_bytes(content + b"x")
    assert not is_unchanged(path, signed)
    with pytest.raises(InputError):
        is_unchanged(tmp_path / "missing.png", signed)


# Masks


def test_masks_are_found_by_name(tmp_path):
    make_files(tmp_path, "sub/a.jpg.png", "b.png", "c.png.png", "c.png")
    assert mask_path(tmp_path, "sub/a.jpg") == tmp_path / "sub" / "a.jpg.png"
    assert mask_path(tmp_path, "b.png") == tmp_path / "b.png"
    assert mask_path(tmp_path, "c.png") == tmp_path / "c.png.png"
    assert mask_path(tmp_path, "d.png") == tmp_path / "d.png.png"
    assert masks_missing(tmp_path, ["sub/a.jpg", "b.png", "x.jpg"]) == ("x.jpg",)
    with pytest.raises(InputError, match="no mask for any"):
        masks_missing(tmp_path, ["x.jpg", "y.jpg"])
    with pytest.raises(InputError, match="no folder"):
        masks_missing(tmp_path / "missing", ["x.jpg"])


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "P", "I;16", "LA"])
def test_masks_of_every_kind(tmp_path, mode):
    expected = np.zeros((10, 20), bool)
    expected[2:5, 3:9] = True
    image = Image.fromarray(expected.astype(np.uint8) * 255)
    image = Image.fromarray(expected.astype(np.uint16)) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "a.jpg.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.jpg.png", (20, 10)), expected)


def test_faint_mask_values_keep(tmp_path):
    saved(tmp_path / "m.png", np.array([[0, 1], [2, 255]], np.uint8))
    assert read_mask(tmp_path / "m.png", (2, 2)).tolist() == [[False, True], [True, True]]


def test_masks_of_another_size_are_refused(tmp_path):
    path = saved(tmp_path / "m.png", np.zeros((10, 20), np.uint8))
    with pytest.raises(InputError, match="20 x 10 pixels, its photo 40 x 20"):
        read_mask(path, (40, 20))
    assert read_mask(tmp_path / "missing.png", (4, 3)).all()
    assert read_mask(tmp_path / "missing.png", (4, 3)).shape == (3, 4)


def test_keypoints_on_masked_pixels_go():
    mask = np.array([[True, False, True], [True, True, False]])
    points = np.array([[0, 0], [1.49, 0], [1.51, 0.4], [2, 0.6], [-0.6, 1.2], [2.9, 9]], np.float32)
    assert keep_unmasked(points, mask).tolist() == [True, False, True, False, True, False]
    assert keep_unmasked(np.empty((0, 2)), mask).shape == (0,)


@pytest.mark.data
def test_real_photos_are_read_at_half_size(shared_data):
    path = next((shared_data / "photos" / "fountain-P11" / "images").iterdir())
    photo = read_photo(path, longest=700)
    assert photo.reduction == 2
    assert photo.pixels.shape == (512, 768, 3)
    assert read_header(path).size == (1536, 1024)
