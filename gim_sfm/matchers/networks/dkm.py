"""DKM: dense kernelized feature matching (Edstedt et al., CVPR 2023), version 3, as GIM trained it again.

A Gaussian process says from coarse features where each pixel of one image lies in the other; refiners with
finer and finer features correct it. Flows are (x, y) from -1 to 1 between the edges of the other image.
Under the published parameter names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gim_sfm.matchers.networks.correlation import correlate, pixel_centres, read_between
from gim_sfm.matchers.networks.folding import fold_norms
from gim_sfm.matchers.networks.resnet import ResNet50
from gim_sfm.matchers.weights import strip_prefixes

COARSE = ("32", "16")
FINE = ("8", "4", "2", "1")
BASIS = 256
CONTEXT = 384
TEMPERATURE = 0.2
NOISE = 0.1
SHARED_ABOVE = 2000
"""Cells beyond which the published code takes one direction's inverse for both."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Where pixels lie in the other image, at one scale.

    Attributes:
        flow: Normalised (x, y), (b, 2, h, w).
        logits: Of the certainty, (b, 1, h, w).
    """

    flow: Tensor
    logits: Tensor

    def resize(self, size: torch.Size | tuple[int, int]) -> "Estimate":
        """The same at another (height, width)."""
        return Estimate(resize(self.flow, size), resize(self.logits, size))


def resize(maps: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Bilinear interpolation between pixel centres, without averaging, to a (height, width)."""
    return functional.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def swap(maps: Tensor) -> Tensor:
    """The partners of a batch whose second half are the partners of the first."""
    return maps.roll(len(maps) // 2, dims=0)


class Encoder(nn.Module):
    """A pyramid of features by its strides; the image itself at stride 1."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ResNet50(blocks=4, pooled=True)

    def forward(self, images: Tensor, strides: Iterable[str]) -> dict[str, Tensor]:
        """(b, 3, h, w) to features at these strides, whatever is coarser not computed."""
        wanted, net = set(strides), self.net
        pyramid = {"1": images}
        if wanted > {"1"}:
            pyramid["2"] = net.relu(net.bn1(net.conv1(images)))
        for stride, name in zip(("4", "8", "16", "32"), net.names, strict=True):
            if max(map(int, wanted)) < int(stride):
                break
            below = net.pool(pyramid["2"]) if stride == "4" else pyramid[str(int(stride) // 2)]
            pyramid[stride] = net.get_submodule(name)(below)
        return {stride: pyramid[stride] for stride in wanted}


class GaussianProcess(nn.Module):
    """Predicts an embedding of the place in the other image from the likeness of features.

    Args:
        share_inverse: Beyond `SHARED_ABOVE` cells use the inverse of the way there for the way back too, as
            the published code does by mistake.
    """

    def __init__(self, *, share_inverse: bool) -> None:
        super().__init__()
        self.share_inverse = share_inverse
        self.pos_conv = nn.Conv2d(2, BASIS, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Posterior mean (b, 256, h, w) of the embeddings of y's pixels at those of x, both (b, c, h, w)."""
        embedding = torch.cos(8 * torch.pi * self.pos_conv(pixel_centres(y)))[0].flatten(1).T
        queries, support = (maps.flatten(2).transpose(1, 2) for maps in (x, y))
        count = len(y)
        shared = self.share_inverse and len(embedding) > SHARED_ABOVE
        # One matrix at a time: batched factorisations have failed with more than one thread.
        weights = [self._weigh(rows, embedding) for rows in (support[: count // 2] if shared else support)]
        means = [likeness(queries[i], support[i]) @ weights[i % len(weights)] for i in range(count)]
        return torch.stack(means).transpose(1, 2).reshape(count, BASIS, *x.shape[-2:])

    def _weigh(self, support: Tensor, embedding: Tensor) -> Tensor:
        """(K + noise I)^-1 f, (n, 256)."""
        covariance = likeness(support, support)
        covariance.diagonal().add_(NOISE)
        return torch.cholesky_solve(embedding, torch.linalg.cholesky(covariance))


def likeness(rows0: Tensor, rows1: Tensor) -> Tensor:
    """Exponential of the cosine between all features (m, c) and (n, c), (m, n)."""
    norms = rows0.norm(dim=1)[:, None] * rows1.norm(dim=1) + 1e-6
    return torch.exp(((rows0 @ rows1.T) / norms - 1) / TEMPERATURE)


class ResidualBlock(nn.Module):
    """A 1x1 convolution and two 3x3 ones beside its result."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)
        self.conv3 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, inputs, h, w) to (b, outputs, h, w)."""
        outer = self.conv1(x)
        return functional.relu(outer + self.conv3(functional.relu(self.bn(self.conv2(outer)))))


class ChannelAttention(nn.Module):
    """Adds the channels of an embedding to the context as far as both of them, averaged, call for it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2 * channels, channels, 1)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, context: Tensor, embedding: Tensor) -> Tensor:
        """(b, channels, h, w) from two of them."""
        average = torch.cat([context, embedding], dim=1).mean(dim=(2, 3), keepdim=True)
        share = torch.sigmoid(self.conv2(functional.relu(self.conv1(average))))
        return share * embedding + context


class EmbeddingDecoder(nn.Module):
    """Reads a first flow out of the embeddings (Yu et al., Discriminative feature network, CVPR 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.feat_input_modules = nn.ModuleDict({s: nn.Conv2d(512, BASIS, 1) for s in COARSE})
        self.rrb_d = nn.ModuleDict({s: ResidualBlock(2 * BASIS, CONTEXT) for s in COARSE})
        self.cab = nn.ModuleDict({s: ChannelAttention(CONTEXT) for s in COARSE})
        self.rrb_u = nn.ModuleDict({s: ResidualBlock(CONTEXT, CONTEXT) for s in COARSE})
        self.terminal_module = nn.ModuleDict({s: nn.Conv2d(CONTEXT, 3, 1) for s in COARSE})

    def forward(
        self, stride: str, x: Tensor, embedding: Tensor, context: Tensor | None
    ) -> tuple[Estimate, Tensor]:
        """The flow at a scale and the context for the next one.

        Args:
            stride: Of the scale.
            x: Projected features, (b, 512, h, w).
            embedding: From the Gaussian process, (b, 256, h, w).
            context: From the coarser scale, of any size; None at the coarsest.
        """
        inner = self.rrb_d[stride](torch.cat([self.feat_input_modules[stride](x), embedding], dim=1))
        before = torch.zeros_like(inner) if context is None else resize(context, inner.shape[-2:])
        context = self.rrb_u[stride](self.cab[stride](before, inner))
        logits, flow = self.terminal_module[stride](context).split([1, 2], dim=1)
        return Estimate(flow, logits), context


class Refiner(nn.Module):
    """Corrects a flow by comparing features with those at the flow's ends.

    Args:
        channels: Of the features.
        displacement: Channels that embed how far each pixel moves.
        radius: Of the window around the flow's end in which features are compared; None: no comparison.
        hidden: Channels inside; None for as many as come in.
    """

    def __init__(
        self, channels: int, displacement: int, radius: int | None, hidden: int | None = None
    ) -> None:
        super().__init__()
        self.radius = radius
        compared = 0 if radius is None else (2 * radius + 1) ** 2
        inputs = 2 * channels + displacement + compared
        hidden = inputs if hidden is None else hidden
        self.disp_emb = nn.Conv2d(2, displacement, 1)
        self.block1 = _block(inputs, hidden)
        self.hidden_blocks = nn.Sequential(*(_block(hidden, hidden) for _ in range(8)))
        self.out_conv = nn.Conv2d(hidden, 3, 1)

    def forward(self, x: Tensor, y: Tensor, flow: Tensor) -> Estimate:
        """The corrections in units of an image's pixel, (b, 2, h, w), and of the logits, single precision.

        Args:
            x: Features of the one image, (b, c, h, w).
            y: Of the other.
            flow: From the one to the other, (b, 2, h, w), single precision.
        """
        moved = self.disp_emb(flow - pixel_centres(x))
        parts = [x, read_between(y, flow), moved.to(x.dtype)]
        if self.radius is not None:
            parts.append(correlate(x, y, flow, self.radius))
        inner = self.hidden_blocks(self.block1(torch.cat(parts, dim=1)))
        logits, change = self.out_conv(inner.to(self.out_conv.weight.dtype)).split([1, 2], dim=1)
        return Estimate(change, logits)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 5, padding=2, groups=inputs),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 1),
    )


class Decoder(nn.Module):
    """From two pyramids to a flow."""

    def __init__(self, *, share_inverse: bool) -> None:
        super().__init__()
        self.embedding_decoder = EmbeddingDecoder()
        self.gps = nn.ModuleDict({s: GaussianProcess(share_inverse=share_inverse) for s in COARSE})
        self.proj = nn.ModuleDict({"16": nn.Conv2d(1024, 512, 1), "32": nn.Conv2d(2048, 512, 1)})
        self.conv_refiner = nn.ModuleDict(
            {
                "16": Refiner(512, 128, radius=7),
                "8": Refiner(512, 64, radius=3),
                "4": Refiner(256, 32, radius=2),
                "2": Refiner(64, 16, radius=None),
                "1": Refiner(3, 6, radius=None, hidden=24),
            }
        )

    def begin(self, pyramid: Mapping[str, Tensor]) -> dict[str, Estimate]:
        """First flows at strides 32 and 16, the finer one refined."""
        found: dict[str, Estimate] = {}
        context = None
        for stride in COARSE:
            x = self.proj[stride](pyramid[stride])
            embedding = self.gps[stride](x, swap(x))
            found[stride], context = self.embedding_decoder(stride, x, embedding, context)
        found["16"] = self._refine("16", x.to(pyramid["1"].dtype), found["16"], pyramid["1"])
        return found

    def refine(self, pyramid: Mapping[str, Tensor], estimate: Estimate) -> dict[str, Estimate]:
        """Ever finer estimates, at strides 8, 4, 2 and 1."""
        found = {}
        for stride in FINE:
            estimate = estimate.resize(pyramid[stride].shape[-2:])
            estimate = self._refine(stride, pyramid[stride], estimate, pyramid["1"])
            found[stride] = estimate
        return found

    def _refine(self, stride: str, x: Tensor, estimate: Estimate, image: Tensor) -> Estimate:
        height, width = image.shape[-2:]
        # Together the images of a batch gain nothing on a processor but take more memory.
        most = 1 if x.device.type == "cpu" else len(x)
        pieces = zip(*(torch.split(maps, most) for maps in (x, swap(x), estimate.flow)), strict=True)
        changes = [self.conv_refiner[stride](*piece) for piece in pieces]
        flow = torch.cat([change.flow for change in changes])
        logits = torch.cat([change.logits for change in changes])
        unit = torch.tensor([width, height], device=x.device)[:, None, None] * 4 / int(stride)
        return Estimate(estimate.flow + flow / unit, estimate.logits + logits)


class Dkm(nn.Module):
    """The whole network.

    Args:
        share_inverse: As in `GaussianProcess`.
    """

    def __init__(self, *, share_inverse: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.decoder = Decoder(share_inverse=share_inverse)
        self.precision = torch.float32

    def forward(self, low: Tensor, high: Tensor) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
        """Estimates by stride, of the first pass and of the one that makes it finer.

        Args:
            low: Images at the size in which the whole is looked for, (b, 3, h, w), the second half of the
                batch the partners of the first.
            high: The same at the size of the result.
        """
        pyramid = self._encode(low, (*COARSE, *FINE))
        first = self.decoder.begin(pyramid)
        first |= self.decoder.refine(pyramid, first["16"])
        del pyramid
        return first, self.decoder.refine(self._encode(high, FINE), first["1"])

    def _encode(self, images: Tensor, strides: Iterable[str]) -> dict[str, Tensor]:
        """Features; those that the Gaussian processes compare stay in single precision."""
        pyramid = self.encoder(images.contiguous(memory_format=torch.channels_last), strides)
        return {s: maps if s in COARSE else maps.to(self.precision) for s, maps in pyramid.items()}


def load_dkm(
    state_dict: Mapping[str, Tensor],
    *,
    device: torch.device,
    precision: torch.dtype,
    share_inverse: bool = False,
) -> Dkm:
    """The network with published weights, ready to be run.

    Args:
        state_dict: As published, with or without the leading `model.`.
        device: Where to compute.
        precision: Number format of the refiners, which take nearly all of the time. An encoder in bfloat16
            would put first flows off by about fifteen times as much as the refiners do.
        share_inverse: As in `GaussianProcess`.

    Raises:
        RuntimeError: Parameters are missing or unknown.
    """
    network = Dkm(share_inverse=share_inverse)
    own = strip_prefixes(state_dict)
    network.load_state_dict(
        {name: value for name, value in own.items() if not name.startswith("encoder.net.fc.")}
    )
    fold_norms(network.eval().requires_grad_(False))
    network.precision = precision
    for refiner in network.decoder.conv_refiner.values():
        refiner.get_submodule("block1").to(precision)
        refiner.get_submodule("hidden_blocks").to(precision)
    return network.to(device).to(memory_format=torch.channels_last)
