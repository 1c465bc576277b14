"""The convolutional trunk of GIM's DKM and LoFTR: ResNet-50 (He et al., CVPR 2016), v1.5."""

from torch import Tensor, nn

EXPANSION = 4
DEPTHS = (3, 4, 6, 3)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the 3x3 one strides.

    Args:
        inputs: Channels that come in.
        width: Channels between; `EXPANSION` times as many go out.
        stride: Of the block.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if stride != 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, inputs, h, w) to (b, 4 width, h / stride, w / stride)."""
        inner = self.relu(self.bn1(self.conv1(x)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        outer: Tensor = self.relu(self.bn3(self.conv3(inner)) + self.downsample(x))
        return outer


class ResNet50(nn.Module):
    """The stem and the first blocks, under torchvision's parameter names.

    Args:
        blocks: How many of the four blocks there are.
        pooled: Whether the stem ends in the max-pooling of the original.
    """

    def __init__(self, *, blocks: int, pooled: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, 1) if pooled else nn.Identity()
        self.names = [f"layer{index + 1}" for index in range(blocks)]
        inputs = 64
        for index, name in enumerate(self.names):
            width = 64 * 2**index
            first = Bottleneck(inputs, width, stride=2 if index else 1)
            inputs = width * EXPANSION
            rest = [Bottleneck(inputs, width, stride=1) for _ in range(DEPTHS[index] - 1)]
            self.add_module(name, nn.Sequential(first, *rest))

    def forward(self, image: Tensor) -> list[Tensor]:
        """What the stem gives before its pooling, at half the image's size, and every block after it."""
        maps = [self.relu(self.bn1(self.conv1(image)))]
        x = self.pool(maps[0])
        for name in self.names:
            x = self.get_submodule(name)(x)
            maps.append(x)
        return maps
