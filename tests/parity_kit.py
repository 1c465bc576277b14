"""The official networks' outputs for weights made by a rule; see ../shared/parity/README.md."""

import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from gim_sfm.types import Photo

KIT = Path(__file__).parents[2] / "shared" / "parity"

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the parity kit is not beside this checkout")


@cache
def made_weights(model: str) -> dict[str, torch.Tensor]:
    """Tensors under the names of the official file; leave them as they are."""
    spec = importlib.util.spec_from_file_location("parity_weights", KIT / "weights.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the kit's folder is read-only
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    tensors: dict[str, torch.Tensor] = module.state_dict(model)
    assert module.digest(tensors) == module.kit()["sha256"][model], "this numpy draws other numbers"
    return tensors


@cache
def expected(name: str) -> dict[str, np.ndarray]:
    """Arrays of one file of the kit."""
    with np.load(KIT / "expected" / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def colour_photo(name: str) -> Photo:
    """An image of the kit as the package reads photos."""
    pixels = cv2.imread(str(KIT / "images" / f"{name}.png"))[..., ::-1].copy()
    return Photo(pixels, (pixels.shape[1], pixels.shape[0]))


def grey_photo(name: str) -> Photo:
    """The same as OpenCV's decoder turns it grey, which rounds otherwise than a conversion afterwards."""
    pixels = cv2.imread(str(KIT / "images" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
    return Photo(np.repeat(pixels[..., None], 3, axis=2), (pixels.shape[1], pixels.shape[0]))


def points_of(array: np.ndarray) -> set[tuple[float, ...]]:
    """Rows as a set, to a thousandth."""
    return {tuple(row) for row in np.asarray(array, np.float64).round(3).tolist()}


def largest_gap(own: Any, official: Any) -> float:
    return float(np.abs(np.asarray(own, np.float64) - np.asarray(official, np.float64)).max())
