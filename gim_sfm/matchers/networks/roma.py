"""RoMa (Edstedt et al., CVPR 2024): the layers of the package romatch, run by a loop of our own.

romatch builds the network and reads its weights. Running it is done here, since its own way computes in
float16 on every GPU and in float32 on every processor, holds all maps of both photos at once, and spends most
of its time on a processor in reading the surroundings of every pixel one place at a time. Here photos are
encoded one by one, so that what is known of one serves all its pairs, and a photo is related to another one
way at a time. Reading around places is DKM's, as both networks refine alike.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gim_sfm.errors import SettingsError
from gim_sfm.matchers.lightglue import attend
from gim_sfm.matchers.networks.correlation import correlate, pixel_centres, read_between
from gim_sfm.matchers.networks.dkm import Estimate
from gim_sfm.matchers.networks.folding import fold_norms
from gim_sfm.matchers.weights import strip_prefixes

logger = logging.getLogger(__name__)

PATCH = 14
"""Pixels along a side of what becomes one token of the transformers."""

POOLED = 8
"""Pixels of the coarsest map of the convolutional trunk along a side."""

ANCHORS_A_SIDE = 64
TRUNK_SCALES = (1, 2, 4, 8)
REFINERS_UNIT = 4
"""The refiners tell their shifts in quarters of a pixel of their scale."""

DISPLACEMENT_UNIT = 40 / 32


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the network knows of one photo; maps are (1, channels, height, width), channels last in memory.

    Attributes:
        coarse: By scale, from 16 to 1, of the photo at the low resolution.
        fine: By scale, from 8 to 1, at the high resolution.
    """

    coarse: dict[int, Tensor]
    fine: dict[int, Tensor]


@dataclass(frozen=True, slots=True)
class Relation:
    """All that was found out about one way of a pair.

    Attributes:
        final: At the high resolution.
        doubt: Logits of the certainty at the coarsest scale, (1, 1, h, w).
    """

    final: Estimate
    doubt: Tensor


class _Blank(TorchFunctionMode):
    """Fills new layers with zeros instead of random values, which would be overwritten at once.

    Drawing them takes longer than all else of the loading, and changes torch's state of chance. Zeros, since
    memory left as it is may hold denormal numbers, with which the rest of the filling computes for minutes.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (Tensor.uniform_, Tensor.normal_) or getattr(func, "__module__", "") == "torch.nn.init":
            tensor: Tensor = args[0] if args else (kwargs or {})["tensor"]
            return tensor.detach().zero_()
        return func(*args, **(kwargs or {}))


def _import_romatch() -> Any:
    try:
        return import_module("romatch.models.model_zoo.roma_models")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"RoMa needs packages that are not installed; {error.name} is missing.",
            remedy="Run `pip install 'gim_sfm[roma]'` and `pip install --no-deps romatch==0.1.2`, "
            "or choose another matcher.",
        ) from error


@contextmanager
def _quietly(module: Any) -> Iterator[None]:
    """Lets a module of romatch say what it has to say to our log, and leaves no warning filter behind."""
    spoken_to, module.logger = module.logger, logger
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        module.logger = spoken_to


def build_network(state_dict: Mapping[str, Tensor], dinov2_state_dict: Mapping[str, Tensor]) -> Any:
    """The network of romatch with these weights, in single precision; an untyped module.

    Args:
        state_dict: Of RoMa or GIM-RoMa; a leading `model.` is taken off its names.
        dinov2_state_dict: Of DINOv2 ViT-L/14, which RoMa's files do not hold.

    Raises:
        SettingsError: romatch is not installed.
        RuntimeError: Parameters are missing, unexpected or of another shape.
    """
    module = _import_romatch()
    own = strip_prefixes(state_dict)
    with _quietly(module), _Blank():
        network = module.roma_model(
            resolution=(560, 560),  # only its `match` would look at it
            upsample_preds=True,
            weights=own,
            dinov2_weights=dict(dinov2_state_dict),
            amp_dtype=torch.float32,
            use_custom_corr=False,
        )
    return network.eval().requires_grad_(False)


class Attention(nn.Module):
    """Self-attention with the weights of a module of romatch, whether xformers is installed or not."""

    def __init__(self, published: Any) -> None:
        super().__init__()
        self.heads = published.num_heads
        self.qkv = published.qkv
        self.proj = published.proj

    def forward(self, tokens: Tensor) -> Tensor:
        """(1, n, c) to (1, n, c)."""
        count, channels = tokens.shape[1:]
        split = self.qkv(tokens[0]).reshape(count, 3, self.heads, channels // self.heads)
        queries, keys, values = split.permute(1, 2, 0, 3)
        message = attend(queries * queries.shape[-1] ** -0.5, keys, values)
        result: Tensor = self.proj(message)[None]
        return result


def _own_attention(blocks: Any) -> Any:
    for block in blocks:
        block.attn = Attention(block.attn)
    return blocks


class Trunk(nn.Module):
    """The first four stages of VGG-19, each up to its pooling, and the projection of their maps.

    Args:
        layers: Of VGG-19 with batch normalisation, up to and with the fourth pooling.
        projections: By scale.
    """

    def __init__(self, layers: Sequence[nn.Module], projections: Any) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.stages = nn.ModuleList()
        stage = nn.Sequential()
        for layer in layers:
            if isinstance(layer, nn.MaxPool2d):
                self.stages.append(stage)
                stage = nn.Sequential()
            else:
                stage.append(layer)
        self.projections = nn.ModuleList(projections[str(scale)] for scale in TRUNK_SCALES)

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """Maps by scale, the coarsest first, of an image (1, 3, h, w)."""
        maps = {}
        for scale, stage, project in zip(TRUNK_SCALES, self.stages, self.projections, strict=True):
            image = stage(self.pool(image) if scale > 1 else image)
            maps[scale] = project(image)
        return dict(reversed(maps.items()))


class Anchoring(nn.Module):
    """Which of the anchors, spread over the other photo, each patch of a photo lies nearest to.

    Args:
        decoder: romatch's decoder.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.process = decoder.gps["16"]
        self.blocks = _own_attention(decoder.embedding_decoder.blocks)
        self.classify = decoder.embedding_decoder.to_out

    def forward(self, own: Tensor, other: Tensor) -> Estimate:
        """Where patches lie, from the projected maps of scale 16."""
        height, width = own.shape[-2:]
        answers = self.answer(own, self.process(own, other))
        flow = locate_anchors(answers[:, :-1]).T.reshape(1, 2, height, width)
        return Estimate(flow, answers[:, -1].reshape(1, 1, height, width))

    def answer(self, own: Tensor, posterior: Tensor) -> Tensor:
        """Logits of all anchors, then that of the certainty, for each patch, (n, anchors + 1)."""
        tokens = torch.cat([posterior, own], dim=1).flatten(2).transpose(1, 2)
        answers: Tensor = self.classify(self.blocks(tokens))[0]
        return answers


def locate_anchors(logits: Tensor) -> Tensor:
    """Mean place of the likeliest anchor and its four neighbours, (n, 2), from logits of all (n, anchors).

    Neighbours are told by their number, as published: at the left and right edge one is on the other side.
    """
    side = ANCHORS_A_SIDE
    best = logits.argmax(dim=1, keepdim=True)
    around = torch.tensor([-1, 0, 1, -side, side], device=logits.device)
    index = (best + around).clamp(0, side * side - 1)
    share = logits.gather(1, index).softmax(dim=1)
    places = torch.stack([index % side, index // side], dim=-1)
    return (share[..., None] * ((2 * places + 1) / side - 1)).sum(dim=1)


class Refiner(nn.Module):
    """Corrects an estimate by what the two photos show at each pixel and where it is thought to lie.

    Args:
        published: romatch's refiner.
        precision: Number format of its convolutions.
    """

    def __init__(self, published: Any, precision: torch.dtype) -> None:
        super().__init__()
        self.precision = precision
        self.radius: int = published.local_corr_radius or 0
        self.embed = published.disp_emb
        self.blocks = nn.Sequential(published.block1, *published.hidden_blocks)
        self.blocks.to(memory_format=torch.channels_last).to(precision)
        self.out = published.out_conv

    def forward(self, own: Tensor, other: Tensor, flow: Tensor, zoom: float) -> Tensor:
        """What to add in x and y and to the certainty, (1, 3, h, w), single precision.

        Args:
            own: (1, c, h, w), of the photo whose pixels are looked for.
            other: (1, c, h, w), of the other photo.
            flow: (1, 2, h, w).
            zoom: The displacement's scale factor.
        """
        displacement = self.embed(DISPLACEMENT_UNIT * zoom * (flow - pixel_centres(own)))
        parts = [own, read_between(other, flow), displacement]
        if self.radius:
            parts.append(correlate(own, other, flow, self.radius))
        seen = torch.cat([part.to(self.precision) for part in parts], dim=1)
        found: Tensor = self.out(self.blocks(seen).float())
        return found


class Roma:
    """The whole network.

    Args:
        state_dict: Of RoMa or GIM-RoMa.
        dinov2_state_dict: Of DINOv2 ViT-L/14.
        device: Where to compute.
        precision: Number format of the convolutional trunk and the refiners. The transformers choose among
            anchors, where a rounding may decide for another one; they and all estimates stay in single
            precision.

    Raises:
        SettingsError: romatch is not installed.
        RuntimeError: The weights are of another network.
    """

    def __init__(
        self,
        state_dict: Mapping[str, Tensor],
        dinov2_state_dict: Mapping[str, Tensor],
        *,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.device = device
        self.precision = precision
        published = build_network(state_dict, dinov2_state_dict).to(device)
        encoder, decoder = published.encoder, published.decoder
        fold_norms(published)
        self.transformer = encoder.dinov2_vitl14[0].to(device, torch.float32)
        _own_attention(self.transformer.blocks)
        self.trunk = Trunk(encoder.cnn.layers, decoder.proj)
        self.trunk.to(memory_format=torch.channels_last).to(precision)
        self.project = decoder.proj["16"]
        self.anchoring = Anchoring(decoder)
        self.refiners = {int(scale): Refiner(one, precision) for scale, one in decoder.conv_refiner.items()}

    def encode(self, low: Tensor, high: Tensor) -> Encoding:
        """What the network knows of a photo.

        Args:
            low: The photo, (1, 3, h, w), sides whole multiples of `PATCH` and `POOLED`.
            high: The same photo at a higher resolution, sides whole multiples of `POOLED`.
        """
        low, high = (image.to(self.device) for image in (low, high))
        patches = self.project(self.see_patches(low))
        fine = self.trunk(high.to(self.precision))
        return Encoding({16: patches, **self.trunk(low.to(self.precision))}, fine)

    def see_patches(self, image: Tensor) -> Tensor:
        """DINOv2's features of an image (1, 3, h, w): (1, 1024, h / 14, w / 14)."""
        height, width = (side // PATCH for side in image.shape[-2:])
        tokens = self.transformer.forward_features(image)["x_norm_patchtokens"]
        features: Tensor = tokens.transpose(1, 2).reshape(1, -1, height, width)
        return features

    def relate(self, own: Encoding, other: Encoding, zooms: tuple[float, float]) -> Relation:
        """Where the pixels of one photo lie in the other.

        Args:
            own: Of the one photo.
            other: Of the other.
            zooms: The displacements' scale factors at the low and the high resolution.
        """
        start = self.anchoring(own.coarse[16], other.coarse[16])
        first, *_, low = self.refine(own.coarse, other.coarse, start, zooms[0])
        *_, high = self.refine(own.fine, other.fine, low, zooms[1])
        return Relation(high, first.logits)

    def refine(
        self, own: dict[int, Tensor], other: dict[int, Tensor], start: Estimate, zoom: float
    ) -> Iterator[Estimate]:
        """The estimate after each scale, from the coarsest of these maps to the finest."""
        height, width = own[1].shape[-2:]
        unit = torch.tensor([width, height], device=self.device)[:, None, None] * REFINERS_UNIT
        estimate = start
        for scale, maps in own.items():
            estimate = estimate.resize(maps.shape[-2:])
            found = self.refiners[scale](maps, other[scale], estimate.flow, zoom)
            estimate = Estimate(estimate.flow + scale * (found[:, :2] / unit), estimate.logits + found[:, 2:])
            yield estimate
