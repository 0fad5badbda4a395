import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from fitdiff.errors import ImageError
from fitdiff.runtime.photo import BACKDROP, MAX_MEGAPIXELS, is_monochrome, load_photo

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return load_photo(EXAMPLE).pixels


@pytest.fixture
def quadrants() -> np.ndarray:
    """(40, 60, 3): four colours, no symmetry."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:] = (200, 40, 40), (40, 200, 40)
    pixels[20:, :30], pixels[20:, 30:] = (40, 40, 200), (210, 210, 60)
    return pixels


def test_example_photo() -> None:
    photo = load_photo(EXAMPLE)
    assert photo.pixels.shape == (512, 512, 3)
    assert photo.pixels.dtype == np.uint8
    assert photo.sha256 == hashlib.sha256(EXAMPLE.read_bytes()).hexdigest()
    assert photo.exif_orientation == 1
    assert photo.notes == ()
    assert not photo.is_monochrome
    assert EXAMPLE.stat().st_size < 200 * 1024


# How a camera held that way stores the scene: the inverse of what the tag tells a reader to do.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, quadrants: np.ndarray, orientation: int, suffix: str) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](quadrants)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{suffix}"
    exact = {"png": {}, "webp": {"lossless": True}, "tiff": {}, "jpg": {"quality": 100, "subsampling": 0}}
    stored.save(path, exif=exif, **exact[suffix])
    photo = load_photo(path)
    assert photo.exif_orientation == orientation
    assert photo.pixels.shape == quadrants.shape
    assert np.abs(photo.pixels.astype(int) - quadrants).max() <= (4 if suffix == "jpg" else 0)


def test_damaged_exif_is_tolerated(tmp_path: Path, quadrants: np.ndarray) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(quadrants).save(path, quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    assert load_photo(path).exif_orientation == 1


def test_alpha_is_composited_on_mid_grey(tmp_path: Path, quadrants: np.ndarray) -> None:
    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[:20] = 0
    Image.fromarray(np.concatenate([quadrants, alpha], 2)).save(tmp_path / "rgba.png")
    pixels = load_photo(tmp_path / "rgba.png").pixels
    assert (pixels[:20] == BACKDROP).all()
    assert (pixels[20:] == quadrants[20:]).all()


def test_grey_with_alpha(tmp_path: Path) -> None:
    Image.new("LA", (40, 40), (90, 0)).save(tmp_path / "la.png")
    assert (load_photo(tmp_path / "la.png").pixels == BACKDROP).all()


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_becomes_rgb(tmp_path: Path, mode: str) -> None:
    Image.linear_gradient("L").convert(mode).save(tmp_path / "grey.png")
    photo = load_photo(tmp_path / "grey.png")
    assert photo.pixels.shape == (256, 256, 3)
    assert photo.is_monochrome


def test_palette_with_a_transparent_colour(tmp_path: Path, quadrants: np.ndarray) -> None:
    indexed = Image.fromarray(quadrants).quantize(4)
    indexed.info["transparency"] = indexed.getpixel((0, 0))
    indexed.save(tmp_path / "palette.png", transparency=indexed.info["transparency"])
    pixels = load_photo(tmp_path / "palette.png").pixels
    assert (pixels[:20, :30] == BACKDROP).all()
    assert np.abs(pixels[20:].astype(int) - quadrants[20:]).max() <= 4


def test_cmyk(tmp_path: Path, quadrants: np.ndarray) -> None:
    Image.fromarray(quadrants).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    pixels = load_photo(tmp_path / "cmyk.jpg").pixels
    assert np.abs(pixels.astype(int) - quadrants).mean() < 3


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_grey_keeps_its_range(tmp_path: Path, suffix: str) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (40, 1))
    Image.fromarray(ramp).save(tmp_path / f"deep.{suffix}")
    pixels = load_photo(tmp_path / f"deep.{suffix}").pixels
    assert np.abs(pixels[..., 0] - ramp / 257.0).max() <= 0.51


def test_sixteen_bit_colour(tmp_path: Path, quadrants: np.ndarray) -> None:
    import cv2

    deep = quadrants[..., ::-1].astype(np.uint16) * 257
    for name in ("deep.png", "deep.tiff"):
        assert cv2.imwrite(str(tmp_path / name), deep)
        assert (load_photo(tmp_path / name).pixels == quadrants).all()


def test_floating_point_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).random((40, 40), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(ImageError, match=r"floating-point samples; expected 8-bit or 16-bit.*save it as"):
        load_photo(tmp_path / "float.tiff")


def test_embedded_profile_is_converted(tmp_path: Path, quadrants: np.ndarray) -> None:
    """A profile whose red and blue primaries are exchanged must exchange red and blue."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"tmp ").replace(b"bXYZ", b"rXYZ").replace(b"tmp ", b"bXYZ")
    Image.fromarray(quadrants).save(tmp_path / "profile.png", icc_profile=swapped)
    photo = load_photo(tmp_path / "profile.png")
    assert np.abs(photo.pixels.astype(int) - quadrants[..., ::-1]).max() <= 3
    assert photo.notes == ()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_srgb_profile_changes_nothing_and_a_broken_one_is_noted(
    tmp_path: Path, quadrants: np.ndarray, mode: str
) -> None:
    image = Image.fromarray(quadrants).convert(mode)
    image.save(tmp_path / "plain.png")
    plain = load_photo(tmp_path / "plain.png").pixels
    image.save(tmp_path / "broken.png", icc_profile=b"not a profile")
    broken = load_photo(tmp_path / "broken.png")
    assert (broken.pixels == plain).all()
    assert "colour profile" in broken.notes[0]
    if mode != "L":
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        image.save(tmp_path / "srgb.png", icc_profile=srgb)
        assert np.abs(load_photo(tmp_path / "srgb.png").pixels.astype(int) - plain).max() <= 1


def test_profile_of_another_colour_space_is_noted(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("L", (40, 40), 77).save(tmp_path / "grey.png", icc_profile=srgb)
    photo = load_photo(tmp_path / "grey.png")
    assert (photo.pixels == 77).all()
    assert len(photo.notes) == 1


def test_first_frame_of_an_animation(tmp_path: Path, quadrants: np.ndarray) -> None:
    first, second = Image.fromarray(quadrants), Image.fromarray(quadrants[::-1])
    first.save(tmp_path / "moving.webp", save_all=True, append_images=[second], lossless=True)
    photo = load_photo(tmp_path / "moving.webp")
    assert (photo.pixels == quadrants).all()
    assert "2 images" in photo.notes[0]


def _png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    end = b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + end


BROKEN = {
    "empty.jpg": (b"", "0 bytes"),
    "text.jpg": (b"this is no photo at all, whatever its name says", "not a readable image"),
    "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "HEIC.*heif-convert"),
    "raw.tiff": (b"II*\0\x08\0\0\0" + bytes(32), "TIFF of an unknown kind"),
    "scan.pdf": (b"%PDF-1.7\n" + bytes(64), "a PDF"),
    "large.png": (_png_header(10001, 10000), f"100 megapixels; expected at most {MAX_MEGAPIXELS:.0f}"),
    "bomb.png": (_png_header(60000, 60000), "too many pixels"),
    "bodyless.png": (_png_header(300, 300), "damaged or truncated PNG"),
    "tiny.png": (_png_header(31, 400), "31 x 400 px; expected at least 32 px"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_unusable_files(tmp_path: Path, name: str) -> None:
    data, message = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        load_photo(tmp_path / name)
    assert caught.value.exit_code == 3
    assert name in str(caught.value)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.98])
def test_truncated_jpeg(tmp_path: Path, keep: float) -> None:
    data = EXAMPLE.read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ImageError, match="damaged or truncated JPEG"):
        load_photo(tmp_path / "cut.jpg")


def test_folder_and_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="a folder"):
        load_photo(tmp_path)
    with pytest.raises(ImageError, match="no such file"):
        load_photo(tmp_path / "absent.jpg")


def test_monochrome(tmp_path: Path, astronaut: np.ndarray) -> None:
    grey = np.asarray(Image.fromarray(astronaut).convert("L"), np.float64)
    sepia = np.stack([grey * 0.95 + 12, grey * 0.82 + 6, grey * 0.62], -1).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 1.5, sepia.shape)
    assert is_monochrome(np.repeat(grey[..., None], 3, 2).astype(np.uint8))
    assert is_monochrome((sepia + noise).clip(0, 255).astype(np.uint8))
    assert not is_monochrome(astronaut)
    Image.fromarray(sepia).save(tmp_path / "sepia.jpg", quality=80)
    assert load_photo(tmp_path / "sepia.jpg").is_monochrome
