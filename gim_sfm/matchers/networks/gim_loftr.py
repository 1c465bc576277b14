"""The backbone of GIM's LoFTR: a ResNet-50 that sees colours, where LoFTR's own is slim and sees grey."""

from torch import Tensor, nn
from torch.nn import functional

from gim_sfm.matchers.networks.resnet import ResNet50

COARSE_WIDTH = 256
MIDDLE_WIDTH = 196
FINE_WIDTH = 128


class GimLoftrBackbone(nn.Module):
    """Maps at an eighth and at half of the image's size, under the published parameter names."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = ResNet50(blocks=3, pooled=False)
        self.layer3_outconv = nn.Conv2d(1024, COARSE_WIDTH, 1, bias=False)
        self.layer2_outconv = nn.Conv2d(512, COARSE_WIDTH, 1, bias=False)
        self.layer2_outconv2 = _smoothing(COARSE_WIDTH, MIDDLE_WIDTH)
        self.layer1_outconv = nn.Conv2d(256, MIDDLE_WIDTH, 1, bias=False)
        self.layer1_outconv2 = _smoothing(MIDDLE_WIDTH, FINE_WIDTH)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Coarse and fine maps.

        Args:
            images: RGB in [0, 1], (b, 3, h, w), sides whole multiples of 8.

        Returns:
            (b, 256, h / 8, w / 8) and (b, 128, h / 2, w / 2).
        """
        _, half, quarter, eighth = self.encode(images)
        coarse: Tensor = self.layer3_outconv(eighth)
        middle = self.layer2_outconv2(_doubled(coarse).add_(self.layer2_outconv(quarter)))
        return coarse, self.layer1_outconv2(_doubled(middle).add_(self.layer1_outconv(half)))


def _smoothing(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(inputs),
        nn.LeakyReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
    )


def _doubled(maps: Tensor) -> Tensor:
    """Twice the size, corner pixels on corner pixels, as the weights were trained."""
    return functional.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=True)
