"""The detector of a sparse matcher of this package, as an extractor of hloc."""

from collections.abc import Mapping
from typing import Any

from hloc.utils.base_model import BaseModel
from torch import Tensor

from gim_sfm.carrying import pixel_of
from gim_sfm.hloc_plugin.conversion import Data, photo_of, tensors_of
from gim_sfm.hloc_plugin.networks import Network
from gim_sfm.matchers.contract import SparseMatcher


class GimSfmDetector(BaseModel):  # type: ignore[misc]
    """Extracts keypoints and descriptors of one photo."""

    required_inputs = ("image",)
    detection_noise = 1.0

    def _init(self, conf: Mapping[str, Any]) -> None:
        self.network = Network(conf, "sparse")

    def _forward(self, data: Data) -> dict[str, Tensor]:
        matcher = self.network.matcher()
        assert isinstance(matcher, SparseMatcher)
        photo = photo_of(data["image"])
        # hloc reads this after every photo: a pixel of what the network sees, in pixels of what it was given.
        self.detection_noise = pixel_of(photo.size, self.network.settings.image_size)
        return tensors_of(matcher.detector.extract([photo])[0])
