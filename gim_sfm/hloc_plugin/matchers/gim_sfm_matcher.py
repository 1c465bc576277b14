"""A sparse matcher of this package as a matcher of hloc."""

from collections.abc import Mapping
from typing import Any

from hloc.utils.base_model import BaseModel
from torch import Tensor

from gim_sfm.hloc_plugin.conversion import Data, features_of, match
from gim_sfm.hloc_plugin.networks import Network


class GimSfmMatcher(BaseModel):  # type: ignore[misc]
    """Matches the keypoints of two photos by their descriptors."""

    required_inputs = (
        "keypoints0",
        "descriptors0",
        "image_size0",
        "keypoints1",
        "descriptors1",
        "image_size1",
    )

    def _init(self, conf: Mapping[str, Any]) -> None:
        self.network = Network(conf, "sparse")

    def _forward(self, data: Data) -> dict[str, Tensor]:
        return match(self.network.matcher(), (features_of(data, "0"), features_of(data, "1")))
