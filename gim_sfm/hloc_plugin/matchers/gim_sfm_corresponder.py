"""A dense or semi-dense matcher of this package as a dense matcher of hloc."""

from collections.abc import Mapping
from typing import Any

from hloc.utils.base_model import BaseModel
from torch import Tensor

from gim_sfm.hloc_plugin.conversion import Data, correspond, photo_of
from gim_sfm.hloc_plugin.networks import Network


class GimSfmCorresponder(BaseModel):  # type: ignore[misc]
    """Matches two photos directly."""

    required_inputs = ("image0", "image1")

    def _init(self, conf: Mapping[str, Any]) -> None:
        self.network = Network(conf, "semi-dense", "dense")

    def _forward(self, data: Data) -> dict[str, Tensor]:
        photos = photo_of(data["image0"]), photo_of(data["image1"])
        return correspond(self.network.matcher(), photos, on_grid=self.network.row.grid > 0)
