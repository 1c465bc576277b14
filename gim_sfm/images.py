"""Photos on disk: which there are, what their headers say, their pixels and their masks.

Every size and pixel is that of the file as stored: EXIF orientation is ignored throughout, as in COLMAP.
"""

import hashlib
import io
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import cv2
import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from gim_sfm.errors import InputError
from gim_sfm.exif import camera_key, focal_pixels, position
from gim_sfm.types import Photo

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes, in lower case, of the files taken for photos."""

MOST_PIXELS = 2**30
"""Decoded pixels beyond which a photo is refused (3 GB of memory)."""


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The photos of a folder and its subfolders.

    Attributes:
        root: The folder.
        names: Paths relative to the root with '/' between folders, sorted.
        ignored: Files that are no photos by their suffix, named in the same way. Hidden files are not listed.
    """

    root: Path
    names: tuple[str, ...]
    ignored: tuple[str, ...] = ()

    @classmethod
    def scan(
        cls, root: Path | str, *, passes_over: Callable[[Path], bool] = lambda _: False
    ) -> "ImageFolder":
        """Lists the photos under a folder, following links to folders.

        Files and folders whose name begins with a dot are passed over: they are thumbnails and the shadows
        that some systems leave beside every photo.

        Args:
            root: The folder.
            passes_over: Whether a folder below it is passed over with all that lies in it.

        Raises:
            InputError: No such folder, no photo in it, or names that later files cannot tell apart or hold.
        """
        root = Path(root)
        _require_folder(root)
        files = sorted(_visible_files(root, passes_over))
        names = tuple(name for name in files if is_photo_name(name))
        ignored = tuple(name for name in files if not is_photo_name(name))
        if not names:
            raise _no_photos(root, ignored)
        return cls.of(root, names, ignored)

    @classmethod
    def of(cls, root: Path, names: Iterable[str], ignored: tuple[str, ...] = ()) -> "ImageFolder":
        """Some photos of a folder; whether they are there shows when they are read.

        Raises:
            InputError: Names that later files cannot tell apart or hold.
        """
        ordered = tuple(sorted(names))
        _require_writable_names(ordered)
        _require_distinct_keys(ordered)
        return cls(root, ordered, ignored)

    def path(self, name: str) -> Path:
        """Where the photo of this name lies."""
        return self.root / name


@dataclass(frozen=True, slots=True)
class PhotoHeader:
    """What a photo tells before any pixel is decoded.

    Attributes:
        size: (width, height) as stored.
        focal_px: Focal length in pixels from EXIF; None where EXIF does not determine it.
        camera_key: Make, model, focal length and size; equal keys mean one camera. Parts that EXIF lacks are
            empty, the size is always there.
        gps: (latitude, longitude, altitude) in degrees and metres; altitude may be None. None without a fix.
    """

    size: tuple[int, int]
    focal_px: float | None
    camera_key: str
    gps: tuple[float, float, float | None] | None


@dataclass(frozen=True, slots=True)
class Signature:
    """What a file was when it was read: length in bytes, time of last change, and BLAKE2b of its content."""

    bytes: int
    mtime_ns: int
    digest: str


def is_photo_name(name: str) -> bool:
    """Whether a file of this name is taken for a photo."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def read_photo(path: Path | str, *, longest: int | None = None) -> Photo:
    """Decodes a photo to RGB with 8 bits a channel.

    JPEG files can be decoded at 1/2, 1/4 or 1/8 of their size in a fraction of the time; every decoded pixel
    then covers exactly that many file pixels. Alpha is dropped: colours under transparent pixels count as
    stored (a mask excludes them). Channels of 16 bits are taken as 8, 10, 12, 14 or 16 bits deep, the least
    that holds the photo's brightest value: files of 12-bit cameras would else be sixteen times too dark.

    Args:
        path: The photo.
        longest: Decode at the smallest scale whose longest side still has this many pixels; None: in full.

    Raises:
        InputError: The file is missing, empty, cut short, no photo, or has more than `MOST_PIXELS`.
    """
    return _decode(_read_bytes(Path(path)), Path(path), longest)


def read_signed_photo(path: Path | str, *, longest: int | None = None) -> tuple[Photo, Signature]:
    """As `read_photo`, with the signature of the very bytes that were decoded."""
    path = Path(path)
    status, data = _stat(path), _read_bytes(path)
    return _decode(data, path, longest), Signature(len(data), status.st_mtime_ns, _digest(data))


def read_header(path: Path | str) -> PhotoHeader:
    """Reads a photo's size and EXIF without decoding pixels.

    The focal length in pixels comes from the 35 mm equivalent, taken over the diagonal, else from the focal
    length and the resolution of the focal plane.

    Raises:
        InputError: The file is missing, empty or no photo.
    """
    path = Path(path)
    with _readable(path), path.open("rb") as file, _opened(file) as image:
        size, exif = _stored_size(image), image.getexif()
        tags = {**dict(exif), **exif.get_ifd(ExifTags.IFD.Exif)}
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    return PhotoHeader(size, focal_pixels(tags, size), camera_key(tags, size), position(gps))


def signature(path: Path | str) -> Signature:
    """Reads a whole file and signs it.

    Raises:
        InputError: The file cannot be read.
    """
    status, data = _stat(Path(path)), _read_bytes(Path(path))
    return Signature(len(data), status.st_mtime_ns, _digest(data))


def is_unchanged(path: Path | str, signed: Signature) -> bool:
    """Whether a file still has the content that was signed.

    Equal length and time of change are trusted; with another time the content is read and compared.

    Raises:
        InputError: The file cannot be read.
    """
    status = _stat(Path(path))
    if status.st_size != signed.bytes:
        return False
    return status.st_mtime_ns == signed.mtime_ns or signature(path).digest == signed.digest


def mask_path(mask_root: Path, name: str) -> Path:
    """Where the mask of a photo lies: `<name>.png` under the mask folder, as in COLMAP.

    Like COLMAP, a photo that is itself a PNG may have its mask under its own name.
    """
    appended = mask_root / f"{name}.png"
    own = mask_root / name
    return own if name.lower().endswith(".png") and not appended.exists() and own.exists() else appended


def masks_missing(mask_root: Path, names: Iterable[str]) -> tuple[str, ...]:
    """The photos that have no mask.

    Raises:
        InputError: There is no mask folder, or no photo at all has a mask in it.
    """
    names = tuple(names)
    _require_folder(mask_root)
    missing = tuple(name for name in names if not mask_path(mask_root, name).exists())
    if names and len(missing) == len(names):
        raise InputError(
            f"{mask_root} holds no mask for any of the {len(names)} photos",
            remedy=f"name masks after their photo, for instance {mask_path(mask_root, names[0])}",
        )
    return missing


def read_mask(path: Path, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """Reads a mask: true where features are kept, false where the file is black.

    Args:
        path: The mask. Where there is none, everything is kept.
        size: (width, height) of the photo.

    Raises:
        InputError: The mask cannot be read or has another size than its photo.
    """
    if not path.exists():
        return np.broadcast_to(np.True_, (size[1], size[0]))
    with _readable(path), path.open("rb") as file, _opened(file) as image:
        flat = image if image.mode[0] in "1IF" else image.convert("RGB").convert("L")
        kept: Bool[np.ndarray, "height width"] = np.asarray(flat) != 0
    if kept.shape != (size[1], size[0]):
        raise InputError(
            f"mask {path} has {kept.shape[1]} x {kept.shape[0]} pixels, its photo {size[0]} x {size[1]}",
            remedy="give the mask the size of its photo as stored, before any EXIF rotation",
        )
    return kept


def keep_unmasked(
    keypoints: Float[np.ndarray, "n 2"], mask: Bool[np.ndarray, "height width"]
) -> Bool[np.ndarray, " n"]:
    """Which keypoints lie on a pixel that the mask keeps; a point past the border counts as on it."""
    height, width = mask.shape
    nearest = np.floor(keypoints + 0.5).astype(np.int64)
    return mask[np.clip(nearest[:, 1], 0, height - 1), np.clip(nearest[:, 0], 0, width - 1)]


def _require_folder(root: Path) -> None:
    if not root.exists():
        raise InputError(f"there is no folder {root}", remedy="check the path")
    if not root.is_dir():
        raise InputError(f"{root} is a file, not a folder", remedy="name the folder that holds the photos")


def _visible_files(root: Path, passes_over: Callable[[Path], bool]) -> Iterator[str]:
    visited = set()
    for folder, below, files in os.walk(root, followlinks=True, onerror=_refuse_folder):
        real = os.path.realpath(folder)
        if real in visited:
            below.clear()
            continue
        visited.add(real)
        below[:] = [name for name in below if not (name.startswith(".") or passes_over(Path(folder, name)))]
        inside = Path(folder).relative_to(root)
        yield from ((inside / name).as_posix() for name in files if not name.startswith("."))


def _refuse_folder(error: OSError) -> None:
    raise InputError(
        f"{error.filename} cannot be listed: {error.strerror}", remedy="make it readable"
    ) from error


def _no_photos(root: Path, ignored: Sequence[str]) -> InputError:
    if not ignored:
        return InputError(f"{root} is empty", remedy="name the folder that holds the photos")
    seen = sorted({PurePosixPath(name).suffix.lower() or "none" for name in ignored})
    return InputError(
        f"{root} holds no photo: {len(ignored)} files with suffix {', '.join(seen[:8])}",
        remedy=f"convert the photos to one of {', '.join(SUFFIXES)}",
    )


def _require_writable_names(names: Iterable[str]) -> None:
    for name in names:
        if not name.isprintable():
            raise InputError(
                f"the file name {name!r} holds characters that text files cannot carry",
                remedy="rename the file",
            )


def _require_distinct_keys(names: Iterable[str]) -> None:
    keys: dict[str, str] = {}
    for name in names:
        other = keys.setdefault(name.replace("/", "-"), name)
        if other != name:
            raise InputError(
                f"{other} and {name} cannot be told apart in a match file, which writes '-' for '/'",
                remedy="rename one of them",
            )


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read: {error.strerror}", remedy="check the path and its permissions")


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


# Pillow decodes: it tells when a file is cut short, where OpenCV fills with grey, and reduces as fast.
def _decode(data: bytes, path: Path, longest: int | None) -> Photo:
    if not data:
        raise InputError(f"{path} is empty (0 bytes)", remedy="copy the photo again or remove it")
    with _readable(path), _opened(io.BytesIO(data)) as image:
        size, turned, deep = _stored_size(image), _orientation_applied(image), _is_deep(image)
        reduction = _start_reduced(image, longest)
        _require_bearable(image, path)
        image.load()
        pixels = _deep_pixels(data, path) if deep else _pixels(image)
    return Photo(np.ascontiguousarray(_UNDO_ORIENTATION[turned](pixels)), size, reduction)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns whatever a decoder raises on a damaged file into an InputError naming the file."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise _unreadable(path, error) from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit into memory", remedy="make the photo smaller") from error
    except (
        Exception
    ) as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        reason = (
            "not a photo, or of an unknown kind" if isinstance(error, UnidentifiedImageError) else str(error)
        )
        raise InputError(
            f"{path} cannot be decoded: {reason}", remedy="copy the photo again, convert it, or remove it"
        ) from error


_pillow_limit = threading.Lock()


@contextmanager
def _opened(file: BinaryIO) -> Iterator[ImageFile.ImageFile]:
    # Pillow refuses 179 megapixels, which phones exceed; our own limit comes after reduction.
    with _pillow_limit:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = before
    with image:
        yield image


def _require_bearable(image: ImageFile.ImageFile, path: Path) -> None:
    if math.prod(image.size) > MOST_PIXELS:
        raise InputError(
            f"{path} has {image.size[0]} x {image.size[1]} pixels, more than {MOST_PIXELS}",
            remedy="make the photo smaller or cut it into parts",
        )


def _start_reduced(image: ImageFile.ImageFile, longest: int | None) -> int:
    """Tells libjpeg to decode smaller; returns the exact factor, 1 for other formats."""
    width, height = image.size
    if longest is None or image.format not in ("JPEG", "MPO"):
        return 1
    fitting = (factor for factor in (8, 4, 2) if max(width, height) // factor >= longest)
    factor = next((factor for factor in fitting if min(width, height) >= factor), 1)
    image.draft(None, (width // factor, height // factor))
    if image.size != (-(-width // factor), -(-height // factor)):
        raise ValueError(f"asked for 1/{factor} of {width} x {height}, the decoder gives {image.size}")
    return factor


def _pixels(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    if image.mode in ("F", "I"):
        raise ValueError("its pixels have 32 bits and no known range")
    opaque = image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
    return np.array(opaque.convert("RGB"))


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether the file has more than 8 bits a channel, which Pillow would cut or clip; ask before loading."""
    codec, _, _, arguments = image.tile[0] if image.tile else ("", None, 0, ())
    if image.format == "PPM":
        return image.mode == "I" or (codec == "ppm" and isinstance(arguments, tuple) and arguments[1] > 255)
    return image.format in ("PNG", "TIFF") and (";16" in str(arguments) or image.mode.startswith("I;16"))


def _deep_pixels(data: bytes, path: Path) -> UInt8[np.ndarray, "height width 3"]:
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None or decoded.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path} cannot be decoded", remedy="convert it to 8 or 16 bits a channel")
    return _to_eight_bits(decoded)[..., ::-1]


def _to_eight_bits(values: Shaped[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    brightest = int(values.max(initial=0))
    depth = next(bits for bits in (8, 10, 12, 14, 16) if brightest < 2**bits)
    return (values >> (depth - 8)).astype(np.uint8)


def _orientation_applied(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation that decoding applies unasked: both decoders turn TIFF files, and only those."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if image.format == "TIFF" else 1
    return orientation if orientation in _UNDO_ORIENTATION else 1


_Pixels = Shaped[np.ndarray, "..."]
_UNDO_ORIENTATION: dict[int, Callable[[_Pixels], _Pixels]] = {
    1: lambda turned: turned,
    2: lambda turned: turned[:, ::-1],
    3: lambda turned: turned[::-1, ::-1],
    4: lambda turned: turned[::-1],
    5: lambda turned: turned.swapaxes(0, 1),
    6: lambda turned: np.rot90(turned, 1),
    7: lambda turned: turned[::-1, ::-1].swapaxes(0, 1),
    8: lambda turned: np.rot90(turned, -1),
}


def _stored_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    if image.format == "TIFF":  # whose size Pillow gives as turned
        tags: Mapping[int, int] = vars(image)["tag_v2"]
        return int(tags[ExifTags.Base.ImageWidth]), int(tags[ExifTags.Base.ImageLength])
    return image.size
