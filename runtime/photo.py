"""A user's image file read into 8-bit sRGB pixels, upright, with what is worth knowing about them.

This file knows file formats, colour profiles and orientations. It knows nothing of faces.
"""

import hashlib
import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from ..errors import ImageError

MAX_MEGAPIXELS = 100.0
MAX_FILE_BYTES = 512 * 2**20
MIN_SIDE = 32  # px: below this the detector has nothing to see
BACKDROP = 128  # sRGB grey that shows through transparent pixels

# Only these decoders run: others can call programs (EPS calls Ghostscript) or hold no photos.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000", "TGA")
READABLE = "a photo as JPEG, PNG, WebP, TIFF, AVIF, BMP or GIF"
SIZE_ADVICE = (f"at most {MAX_MEGAPIXELS:.0f} megapixels", "scale the photo down, or crop it to the person")
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# Tones that a print or a scanner gives to a monochrome photo follow its brightness; what is left is colour.
MONOCHROME_RESIDUAL = 3.0  # 8-bit levels, root mean square


@dataclass(frozen=True, eq=False)
class Photo:
    """An upright photo.

    `pixels` is (H, W, 3) uint8 sRGB; `sha256` is that of the file's bytes; `is_monochrome` is true for grey
    and for single-tint (sepia, blue-toned) photos; `exif_orientation` is the tag that was applied, 1 when it
    has none; `notes` are sentences for the user.
    """

    pixels: np.ndarray
    sha256: str
    is_monochrome: bool
    exif_orientation: int = 1
    notes: tuple[str, ...] = ()


def load_photo(path: Path | str) -> Photo:
    """Read an image file.

    EXIF orientation is applied, an embedded colour profile is converted to sRGB, alpha is composited on mid
    grey, 16-bit, grey, palette and CMYK images become 8-bit RGB, of an animation the first frame is taken.

    Raises ImageError for what cannot be used: absent, empty, truncated, not an image, too large, too small.
    """
    path = Path(path)
    data = _read_bytes(path)
    notes: list[str] = []
    image = _open_image(path, data)
    _check_size(path, image)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO is how a phone stores one photo with its preview or depth
        notes.append(f"the file holds {frames} images; the first is used")
    applied = _exif_orientation(image, notes) if image.format == "TIFF" else 1  # Pillow turns a TIFF as it loads
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as cause:
        raise ImageError(
            str(path),
            f"a damaged or truncated {image.format} file ({cause})",
            "a file that decodes to its end",
            "copy or download the photo again, or open it in an image editor and save it as PNG",
        ) from cause
    orientation = _exif_orientation(image, notes)
    profile = image.info.get("icc_profile")
    pixels = _srgb_from_image(path, _upright(image, orientation), profile, notes)
    return Photo(
        pixels=pixels,
        sha256=hashlib.sha256(data).hexdigest(),
        is_monochrome=is_monochrome(pixels),
        exif_orientation=orientation if applied == 1 else applied,
        notes=tuple(notes),
    )


def is_monochrome(pixels: np.ndarray) -> bool:
    """Whether (H, W, 3) uint8 pixels hold one hue: R - G and B - G are functions of the brightness alone."""
    scale = 256 / max(pixels.shape[:2])
    if scale < 1:
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    flat = pixels.reshape(-1, 3).astype(np.float64)
    chroma = np.stack([flat[:, 0] - flat[:, 1], flat[:, 2] - flat[:, 1]], 1)  # (P, 2)
    level = (flat.mean(1) / 8).astype(np.int64)  # 32 bins of brightness
    count = np.maximum(np.bincount(level, minlength=32), 1)[:, None]
    total = np.stack([np.bincount(level, chroma[:, k], 32) for k in range(2)], 1)
    residual = chroma - (total / count)[level]
    return bool(np.sqrt((residual**2).mean()) < MONOCHROME_RESIDUAL)


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise ImageError(str(path), "a folder", READABLE, "name one file in it")
    if not path.is_file():
        got = "something that is not a file" if path.exists() else "no such file"
        raise ImageError(str(path), got, READABLE, "check the path")
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            limit = MAX_FILE_BYTES // 2**20
            raise ImageError(str(path), f"{size / 2**20:.0f} MiB", f"at most {limit} MiB", "save it smaller")
        data = path.read_bytes()
    except OSError as cause:
        got = f"a file that cannot be read ({cause.strerror})"
        raise ImageError(str(path), got, READABLE, "check its permissions") from cause
    if not data:
        raise ImageError(str(path), "an empty file (0 bytes)", READABLE, "copy or download the photo again")
    return data


def _open_image(path: Path, data: bytes) -> Image.Image:
    """The header alone is read; Pillow's own size guard gives way to `_check_size`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, and of EXIF blocks that are looked at later
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as cause:
        raise ImageError(str(path), f"too many pixels ({cause})", *SIZE_ADVICE) from cause
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as cause:
        if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
            raise ImageError(
                str(path),
                "a HEIC photo",
                READABLE,
                "convert it to JPEG first (macOS: Preview, File > Export; elsewhere: heif-convert); "
                "an iPhone takes JPEG after Settings > Camera > Formats > Most Compatible",
            ) from cause
        got = "something that is not a readable image"
        if data[:4] in (b"II*\0", b"MM\0*"):
            got = "a TIFF of an unknown kind (a camera's raw file, or samples of an unusual type)"
        elif data[:4] == b"%PDF":
            got = "a PDF"
        raise ImageError(str(path), got, READABLE, "open it in an image editor and save it as PNG") from cause


def _check_size(path: Path, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_MEGAPIXELS * 1e6:
        got = f"{width} x {height} px, {width * height / 1e6:.0f} megapixels"
        raise ImageError(str(path), got, *SIZE_ADVICE)
    if min(width, height) < MIN_SIDE:
        expected = f"at least {MIN_SIDE} px on each side, and a face some 100 px wide"
        raise ImageError(str(path), f"{width} x {height} px", expected, "use a larger photo")


def _exif_orientation(image: Image.Image, notes: list[str]) -> int:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stray tag beside the one that is wanted
            value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, struct.error, OSError, ValueError, TypeError, LookupError):
        notes.append("the EXIF block is damaged and was not used")
        return 1
    return value if value in range(1, 9) else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    T = Image.Transpose
    steps = {
        2: T.FLIP_LEFT_RIGHT,
        3: T.ROTATE_180,
        4: T.FLIP_TOP_BOTTOM,
        5: T.TRANSPOSE,
        6: T.ROTATE_270,
        7: T.TRANSVERSE,
        8: T.ROTATE_90,
    }  # EXIF 2.32, table of tag 274: where the first row and column of the picture are
    return image.transpose(steps[orientation]) if orientation in steps else image


def _srgb_from_image(path: Path, image: Image.Image, profile: bytes | None, notes: list[str]) -> np.ndarray:
    """Any mode that Pillow gives -> (H, W, 3) uint8 sRGB."""
    image = _eight_bit(path, image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("RGB")
    if profile:
        image = _srgb_from_profile(image, profile, notes)
    elif image.mode == "LAB":
        image = _srgb_from_lab(image)
    image = image.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        backdrop = Image.new("RGB", image.size, (BACKDROP,) * 3)
        image = Image.composite(image, backdrop, alpha)
    return np.array(image)


def _eight_bit(path: Path, image: Image.Image) -> Image.Image:
    """Scale 16-bit grey down; Pillow's own conversion would clip it at 255 instead."""
    if image.mode == "F":
        raise _unscaled(path, "floating-point samples")
    if not image.mode.startswith("I"):
        return image
    samples = np.asarray(image).astype(np.int64)
    if samples.min() < 0 or samples.max() > 65535:
        raise _unscaled(path, f"32-bit samples from {samples.min()} to {samples.max()}")
    return Image.fromarray(((samples * 255 + 32767) // 65535).astype(np.uint8))


def _unscaled(path: Path, got: str) -> ImageError:
    remedy = "tone-map it in an image editor and save it as 8-bit or 16-bit PNG"
    return ImageError(str(path), got, "8-bit or 16-bit samples, whose white is known", remedy)


def _srgb_from_profile(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), renderingIntent=intent, outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        notes.append("the embedded colour profile is damaged or of another colour space; sRGB is assumed")
        return image
    return converted if converted is not None else image


def _srgb_from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
