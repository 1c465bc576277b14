"""How each matcher of the table is put together; its networks are imported only when it is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from gim_sfm.matchers.contract import DenseMatcher, SemiDenseMatcher, SparseMatcher, WarpMatcher

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gim_sfm.matchers.contract import Matcher

Network = TypeVar("Network")

VISMATCH = "vismatch:"
"""How the name of a matcher begins that comes from the package vismatch."""

SAMPLES = 5000
"""Matches drawn from a warp that is not asked for keypoints; the number of GIM's demo."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a matcher is built with.

    Attributes:
        weights: Parameters of each network, by the id of its weight file.
        device: Where to compute.
        precision: Number format of the networks.
        max_keypoints: Most keypoints of a photo.
        image_size: Longest side in pixels of what the network sees.
    """

    weights: Mapping[str, "dict[str, Tensor]"]
    device: "torch.device"
    precision: "torch.dtype"
    max_keypoints: int
    image_size: int

    def detector(self, kind: Callable[..., Network], weights: str, **more: Any) -> Network:
        """A network that finds keypoints."""
        return self.network(
            kind, weights, max_keypoints=self.max_keypoints, image_size=self.image_size, **more
        )

    def network(self, kind: Callable[..., Network], *weights: str, **more: Any) -> Network:
        """A network with the parameters of these weight files."""
        parameters = [self.weights[id] for id in weights]
        return kind(*parameters, device=self.device, precision=self.precision, **more)


def aliked_lightglue(setup: Setup) -> "Matcher":
    """ALIKED n16 with its LightGlue."""
    from gim_sfm.matchers.aliked import AlikedDetector
    from gim_sfm.matchers.lightglue import LightGlueMatcher

    return SparseMatcher(
        setup.detector(AlikedDetector, "aliked-n16"), setup.network(LightGlueMatcher, "aliked-lightglue")
    )


def disk_lightglue(setup: Setup) -> "Matcher":
    """DISK with its LightGlue."""
    from gim_sfm.matchers.disk import DiskDetector
    from gim_sfm.matchers.lightglue import LightGlueMatcher

    return SparseMatcher(
        setup.detector(DiskDetector, "disk"), setup.network(LightGlueMatcher, "disk-lightglue")
    )


def xfeat_lighterglue(setup: Setup) -> "Matcher":
    """XFeat with LighterGlue."""
    from gim_sfm.matchers.lightglue import LIGHTERGLUE, LightGlueMatcher
    from gim_sfm.matchers.xfeat import XFeatDetector

    return SparseMatcher(
        setup.detector(XFeatDetector, "xfeat"),
        setup.network(LightGlueMatcher, "xfeat-lighterglue", architecture=LIGHTERGLUE),
    )


def xfeat_star(setup: Setup) -> "Matcher":
    """XFeat's semi-dense matching."""
    from gim_sfm.matchers.xfeat import XFeatStarDetector, XFeatStarMatcher

    return SemiDenseMatcher(
        setup.detector(XFeatStarDetector, "xfeat"), setup.network(XFeatStarMatcher, "xfeat")
    )


def root_sift(setup: Setup) -> "Matcher":
    """RootSIFT with mutual nearest neighbours."""
    from gim_sfm.matchers.sift import NearestNeighbourMatcher, RootSiftDetector

    return SparseMatcher(
        RootSiftDetector(max_keypoints=setup.max_keypoints, image_size=setup.image_size),
        NearestNeighbourMatcher(device=setup.device),
    )


def gim_lightglue(setup: Setup) -> "Matcher":
    """SuperPoint with LightGlue, trained by GIM; both lie in one file."""
    from gim_sfm.matchers.lightglue import GIM_LIGHTGLUE, LightGlueMatcher
    from gim_sfm.matchers.superpoint import GIM_SUPERPOINT, SuperPointDetector

    return SparseMatcher(
        setup.detector(SuperPointDetector, "gim-lightglue", architecture=GIM_SUPERPOINT),
        setup.network(LightGlueMatcher, "gim-lightglue", architecture=GIM_LIGHTGLUE),
    )


def superpoint_lightglue(setup: Setup) -> "Matcher":
    """SuperPoint with the LightGlue of its authors."""
    from gim_sfm.matchers.lightglue import SUPERPOINT_LIGHTGLUE, LightGlueMatcher
    from gim_sfm.matchers.superpoint import SUPERPOINT, SuperPointDetector

    return SparseMatcher(
        setup.detector(SuperPointDetector, "superpoint", architecture=SUPERPOINT),
        setup.network(LightGlueMatcher, "superpoint-lightglue", architecture=SUPERPOINT_LIGHTGLUE),
    )


def gim_loftr(setup: Setup) -> "Matcher":
    """LoFTR on a ResNet-50, trained by GIM."""
    from gim_sfm.matchers.loftr import GIM_LOFTR, LoftrMatcher

    return DenseMatcher(
        setup.network(LoftrMatcher, "gim-loftr", image_size=setup.image_size, flavour=GIM_LOFTR)
    )


def loftr(setup: Setup) -> "Matcher":
    """LoFTR as published for outdoor scenes."""
    from gim_sfm.matchers.loftr import LOFTR, LoftrMatcher

    return DenseMatcher(
        setup.network(LoftrMatcher, "loftr-outdoor", image_size=setup.image_size, flavour=LOFTR)
    )


def gim_dkm(setup: Setup) -> "Matcher":
    """DKM, trained by GIM."""
    from gim_sfm.matchers.dkm import GIM_DKM, DkmMatcher

    sizes = {"image_size": setup.image_size, "samples": SAMPLES}
    return WarpMatcher(setup.network(DkmMatcher, "gim-dkm", flavour=GIM_DKM, **sizes))


def dkm(setup: Setup) -> "Matcher":
    """DKM as published for outdoor scenes."""
    from gim_sfm.matchers.dkm import DKM, DkmMatcher

    sizes = {"image_size": setup.image_size, "samples": SAMPLES}
    return WarpMatcher(setup.network(DkmMatcher, "dkm-outdoor", flavour=DKM, **sizes))


def gim_roma(setup: Setup) -> "Matcher":
    """RoMa, trained by GIM, on the DINOv2 that its checkpoint leaves out."""
    from gim_sfm.matchers.roma import GIM_ROMA, RomaMatcher

    sizes = {"image_size": setup.image_size, "samples": SAMPLES}
    return WarpMatcher(setup.network(RomaMatcher, "gim-roma", "dinov2-vitl14", flavour=GIM_ROMA, **sizes))


def roma(setup: Setup) -> "Matcher":
    """RoMa as published for outdoor scenes."""
    from gim_sfm.matchers.roma import ROMA, RomaMatcher

    sizes = {"image_size": setup.image_size, "samples": SAMPLES}
    return WarpMatcher(setup.network(RomaMatcher, "roma-outdoor", "dinov2-vitl14", flavour=ROMA, **sizes))
