"""The twelve sets of ZEB, the benchmark of GIM (Shen et al., ICLR 2024): names, sizes, identifiers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType

NEVER_RESIZED = 9999
"""Pixels; longer than the longest image of a set that is shown as it lies on disk."""

IMAGE_SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
"""Endings of image names, in lower case, that neither identifiers nor image files carry on."""


@dataclass(frozen=True, slots=True)
class ZebSet:
    """One set.

    Attributes:
        short: Three letters, as in the paper's table.
        name: What result files call it.
        folder: Where its pair files and images lie, below the benchmark's root.
        separator: Between scene and image names in the names of its files.
        pairs: Number of pairs published.
        image_size: Longest side in pixels at which images are shown to a network.
        prefix: In front of an image's name in identifiers.
        suffix: Behind it.
    """

    short: str
    name: str
    folder: str
    separator: str
    pairs: int
    image_size: int = NEVER_RESIZED
    prefix: str = ""
    suffix: str = ""

    def identifier(self, scene: str, name0: str, name1: str) -> str:
        """The pair as the published result files name it.

        Args:
            scene: Name of the scene.
            name0: First image as the pair file names it, with or without the ending of an image file.
            name1: Second image.

        Returns:
            `scene#name0#name1` with the set's prefix and suffix to each name.
        """
        names = (f"{self.prefix}{image_stem(name)}{self.suffix}" for name in (name0, name1))
        return "#".join((scene, *names))


def image_stem(name: str) -> str:
    """An image's name without its ending, if it has that of an image; other dots stay."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else name


ZEB_SETS: tuple[ZebSet, ...] = (
    ZebSet("GL3", "GL3D", "gl3d", "_", 5165),
    ZebSet("BLE", "BlendedMVS", "blendedmvs", "_", 5049),
    ZebSet("ETI", "ETH3DI", "eth3di", "-", 2131, image_size=1600, suffix=".JPG"),
    ZebSet("ETO", "ETH3DO", "eth3do", "-", 3438, image_size=1600, suffix=".JPG"),
    ZebSet("KIT", "KITTI", "kitti", "-", 5013, image_size=1240, suffix=".png"),
    ZebSet("WEA", "RobotcarWeather", "robotcarweather", "_", 1834),
    ZebSet("SEA", "RobotcarSeason", "robotcarseason", "_", 1077),
    ZebSet("NIG", "RobotcarNight", "robotcarnight", "_", 2080),
    ZebSet("MUL", "Multi-FoV", "multifov", "-", 5000, prefix="img/", suffix=".png"),
    ZebSet("SCE", "SceneNetRGBD", "scenenet", "-", 5100, suffix=".jpg"),
    ZebSet("ICL", "ICL-NUIM", "iclnuim", "-", 5000, suffix=".jpg"),
    ZebSet("GTA", "GTA-SfM", "gtasfm", "-", 5029),
)
"""In the order of the paper's table."""

ZEB_BY_NAME: Mapping[str, ZebSet] = MappingProxyType({each.name: each for each in ZEB_SETS})
"""By what result files call them."""


def paper_order(name: str) -> tuple[int, str]:
    """Sorts what result files call sets: those of ZEB as in the paper's table, others after them by name."""
    order = list(ZEB_BY_NAME)
    return (order.index(name) if name in order else len(order)), name
