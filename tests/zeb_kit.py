"""Sets in ZEB's layout, written by the tests that read them."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from gim_sfm.geometry import GroundTruth, read_ground_truth, relative_pose

NAMES: Mapping[str, tuple[str, str]] = {
    "GL3": ("00000012.jpg", "00000034.jpg"),
    "BLE": ("00000003.jpg", "00000001.jpg"),
    "ETI": ("DSC_0259.JPG", "DSC_0271.JPG"),
    "ETO": ("DSC_0304.JPG", "DSC_0312.JPG"),
    "KIT": ("000000.png", "000005.png"),
    "WEA": ("1418132416123456", "1418132417123456"),
    "SEA": ("1418756734123456", "1418756735123456"),
    "NIG": ("1418235223123456", "1418235224123456"),
    "MUL": ("img0001_0", "img0009_0"),
    "SCE": ("100", "225"),
    "ICL": ("12", "340"),
    "GTA": ("image_0", "image_39"),
}
"""Two image names as the pair files of each set write them."""


def numbers(*matrices: np.ndarray) -> str:
    return " ".join(f"{value:.12g}" for matrix in matrices for value in np.ravel(matrix))


def pair_line(
    names: tuple[str, str], intrinsics: tuple[np.ndarray, np.ndarray], pose: np.ndarray, overlap: object = 0.5
) -> str:
    whole = np.vstack([pose, [0, 0, 0, 1]])
    return f"{names[0]} {names[1]} {overlap} {overlap} {numbers(*intrinsics, whole)}\n"


def bare(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in (".jpg", ".jpeg", ".png") else name


def write_pair(
    folder: Path, scene: str, separator: str, names: tuple[str, str], line: str, image: bytes | None = None
) -> Path:
    """One pair file, and its images where their bytes are given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names if image else ():
        (folder / f"{scene}{separator}{bare(name)}.png").write_bytes(image or b"")
    path = folder / f"{separator.join([scene, *map(bare, names)])}.txt"
    path.write_text(line)
    return path


def write_photo_set(
    folder: Path, photos: Path, pairs: Iterable[tuple[str, str]], *, separator: str = "-"
) -> GroundTruth:
    """Photos with known cameras as a set."""
    truth = read_ground_truth(photos.parent / "ground_truth.json")
    folder.mkdir(parents=True, exist_ok=True)
    for first, second in pairs:
        for name in (first, second):
            target = folder / f"drawn{separator}{bare(name)}.png"
            if not target.exists():
                cv2.imwrite(str(target), cv2.imread(str(photos / name)))
        pose = relative_pose(truth.cam_from_world[first], truth.cam_from_world[second])
        line = pair_line((first, second), (truth.intrinsics[first], truth.intrinsics[second]), pose)
        write_pair(folder, "drawn", separator, (first, second), line)
    return truth
