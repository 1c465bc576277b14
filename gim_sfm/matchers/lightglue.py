"""LightGlue and its smaller sibling LighterGlue: sparse matching by a transformer that stops when it is sure.

The published weights, run by a loop of our own: one pair at a time without masks or batch dimensions, in half
precision where the processor gains from it, linear layers that follow each other multiplied out beforehand.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from kornia.feature import LightGlue
from torch import Tensor
from torch.nn import functional

from gim_sfm.matchers.contract import FeaturePair
from gim_sfm.types import Features, Matches

QUERIES_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of one member of the LightGlue family, and when it may stop early.

    Attributes:
        input_dim: Length of the descriptors it reads.
        descriptor_dim: Width of the transformer.
        layers: Depth.
        heads: Attention heads.
        depth_confidence: Stop once this share of points is sure of itself; -1 never stops early.
        width_confidence: Drop points that are this sure of having no match; -1 keeps all. The published
            pair, 0.95 and 0.99, takes nearly twice as long for 2 to 5 % more good matches.
        filter_threshold: Smallest score of a match.
    """

    input_dim: int = 128
    descriptor_dim: int = 256
    layers: int = 9
    heads: int = 4
    depth_confidence: float = 0.9
    width_confidence: float = 0.95
    filter_threshold: float = 0.1

    def confidence_threshold(self, layer: int) -> float:
        """How sure a point must be of itself after this layer; the published schedule falls with depth."""
        return 0.8 + 0.1 * math.exp(-4.0 * layer / self.layers)


LIGHTGLUE = Architecture()
LIGHTERGLUE = Architecture(
    input_dim=64, descriptor_dim=96, layers=6, heads=1, depth_confidence=-1, width_confidence=0.95
)


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under kornia's names, whichever of the published files they come from.

    The first releases keep self and cross attention in two lists; LighterGlue's file puts the matcher beside
    the detector. What is not the matcher's is left out.
    """
    prefix = "matcher."
    own = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    renamed = {}
    for key, value in (own or state_dict).items():
        if key.startswith("log_assignment.") and key.endswith(".r"):
            continue  # a parameter of an unpublished variant, left in one of the files
        kind, _, rest = key.partition(".")
        index, _, tail = rest.partition(".")
        renamed[f"transformers.{index}.{kind}.{tail}" if kind in ("self_attn", "cross_attn") else key] = value
    return renamed


def load_network(state_dict: Mapping[str, Tensor], architecture: Architecture) -> Any:
    """Kornia's LightGlue with published weights; an untyped module."""
    shape = architecture
    build: Any = LightGlue  # whose first parameter is optional, whatever its annotation says
    network = build(
        None,
        input_dim=shape.input_dim,
        descriptor_dim=shape.descriptor_dim,
        n_layers=shape.layers,
        num_heads=shape.heads,
        depth_confidence=shape.depth_confidence,
        width_confidence=shape.width_confidence,
        filter_threshold=shape.filter_threshold,
    )
    weights = rename(state_dict)
    weights.setdefault("confidence_thresholds", network.confidence_thresholds)
    network.load_state_dict(weights)
    return network.eval()


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layer: Any, precision: torch.dtype) -> "Linear":
        """A copy in another number format."""
        return cls(layer.weight.to(precision), layer.bias.to(precision))

    def __call__(self, rows: Tensor) -> Tensor:
        """The layer's output in the layer's number format."""
        return functional.linear(rows.to(self.weight.dtype), self.weight, self.bias)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax attention of queries that are scaled already.

    Args:
        queries: (heads, m, d).
        keys: (heads, n, d).
        values: (heads, n, d).

    Returns:
        (m, heads * d).
    """
    heads, count, width = queries.shape
    if queries.device.type != "cpu" or queries.dtype == torch.float32:
        batch = (queries[None], keys[None], values[None])
        message = functional.scaled_dot_product_attention(*batch, scale=1.0)[0]
        return message.transpose(0, 1).reshape(count, heads * width)
    # On a processor torch's fused attention gains nothing from short formats; plain products are faster.
    message = torch.empty(count, heads, width, dtype=queries.dtype)
    for head in range(heads):
        for start in range(0, count, QUERIES_AT_ONCE):
            rows = slice(start, start + QUERIES_AT_ONCE)
            share = functional.softmax(queries[head, rows] @ keys[head].T, dim=-1)
            message[rows, head] = share @ values[head]
    return message.reshape(count, heads * width)


class Update:
    """The residual block after an attention: what a point makes of its message."""

    def __init__(self, output: Any, block: Any, precision: torch.dtype) -> None:
        first, norm, _, last = block
        width = output.weight.shape[0]
        own, received = first.weight[:, :width], first.weight[:, width:]
        self.first = Linear(
            torch.cat([own, received @ output.weight], dim=1).to(precision),
            (first.bias + received @ output.bias).to(precision),
        )
        self.norm = Linear.of(norm, precision)
        self.last = Linear.of(last, precision)

    def __call__(self, points: Tensor, message: Tensor) -> Tensor:
        """New states, (n, d)."""
        hidden = self.first(torch.cat([points.to(message.dtype), message], dim=1))
        hidden = functional.layer_norm(hidden, hidden.shape[1:], self.norm.weight, self.norm.bias)
        return points + self.last(functional.gelu(hidden))


def _split_heads(rows: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """(n, parts * heads * d) -> parts of (heads, n, d)."""
    return rows.reshape(len(rows), parts, heads, -1).permute(1, 2, 0, 3).unbind(0)


class SelfAttention:
    """Attention among the points of one photo; knows where they lie by rotary encoding."""

    def __init__(self, block: Any, precision: torch.dtype) -> None:
        self.heads = block.num_heads
        width = block.head_dim
        # Published: (head, channel, query | key | value), channels in neighbouring pairs that turn together.
        # Here: (query | key | value, head, channel) with the pairs' first halves before their second halves.
        pairs = torch.arange(width).reshape(-1, 2).T.flatten()
        plain = torch.arange(width)
        rows = torch.stack(
            [
                (torch.arange(self.heads)[:, None] * width + order) * 3 + part
                for part, order in enumerate((pairs, pairs, plain))
            ]
        ).to(block.Wqkv.weight.device)
        scale = (
            torch.tensor([width**-0.5, 1.0, 1.0], device=rows.device)[:, None]
            .expand(3, block.embed_dim)
            .flatten()
        )
        self.project = Linear(
            (block.Wqkv.weight[rows.flatten()] * scale[:, None]).to(precision),
            (block.Wqkv.bias[rows.flatten()] * scale).to(precision),
        )
        self.update = Update(block.out_proj, block.ffn, precision)

    def __call__(self, points: Tensor, turns: Tensor) -> Tensor:
        """New states, (n, d); turns as in `Points`."""
        queries, keys, values = _split_heads(self.project(points), 3, self.heads)
        return self.update(points, attend(rotate(queries, turns), rotate(keys, turns), values))


class CrossAttention:
    """Attention between the points of two photos."""

    def __init__(self, block: Any, precision: torch.dtype) -> None:
        self.heads = block.heads
        scale = block.scale**0.5  # on either side of the product
        self.project = Linear(
            torch.cat([block.to_qk.weight * scale, block.to_v.weight]).to(precision),
            torch.cat([block.to_qk.bias * scale, block.to_v.bias]).to(precision),
        )
        self.update = Update(block.to_out, block.ffn, precision)

    def __call__(self, points0: Tensor, points1: Tensor) -> tuple[Tensor, Tensor]:
        """New states of both photos."""
        keys0, values0 = _split_heads(self.project(points0), 2, self.heads)
        keys1, values1 = _split_heads(self.project(points1), 2, self.heads)
        message0, message1 = attend(keys0, keys1, values1), attend(keys1, keys0, values0)
        return self.update(points0, message0), self.update(points1, message1)


def rotate(channels: Tensor, turns: Tensor) -> Tensor:
    """Turn pairs of channels by angles of position: (heads, n, d) by (2, n, d / 2) cosines and sines."""
    cosines, sines = turns
    first, second = channels.chunk(2, dim=-1)
    turned = torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
    return turned.to(channels.dtype)


@dataclass(frozen=True, slots=True)
class Points:
    """The points of one photo that are still in play.

    Attributes:
        states: (n, d), single precision.
        turns: Cosines and sines of their rotary encoding, (2, n, d / heads / 2), single precision.
        indices: Their places in the photo's list, (n,).
    """

    states: Tensor
    turns: Tensor
    indices: Tensor

    def select(self, kept: Tensor) -> "Points":
        """Those at these places."""
        return Points(self.states[kept], self.turns[:, kept], self.indices[kept])

    def become(self, states: Tensor) -> "Points":
        """The same points with new states."""
        return Points(states, self.turns, self.indices)


class LightGlueMatcher:
    """Matches the keypoints of two photos with LightGlue (Lindenberger et al., ICCV 2023).

    Args:
        state_dict: Published weights, under their own or kornia's names.
        device: Where to compute.
        precision: Number format of the transformer; states, confidences and scores stay in single precision.
        architecture: Which member of the family the weights belong to.
    """

    def __init__(
        self,
        state_dict: Mapping[str, Tensor],
        *,
        device: torch.device,
        precision: torch.dtype,
        architecture: Architecture = LIGHTGLUE,
    ) -> None:
        self.device = device
        self.precision = precision
        self.architecture = architecture
        # Gathering the survivors makes an accelerator wait; it pays there only where many points are left.
        self.fewest_to_prune = 1536 if device.type == "cuda" else 0
        with torch.inference_mode():
            self.network = load_network(state_dict, architecture).to(device)
            self.layers = [
                (SelfAttention(layer.self_attn, precision), CrossAttention(layer.cross_attn, precision))
                for layer in self.network.transformers
            ]

    def match(self, pairs: Sequence[FeaturePair]) -> list[Matches]:
        """Index pairs into the two keypoint lists of each pair."""
        return [self._match(*pair) for pair in pairs]

    @torch.inference_mode()
    def _match(self, features0: Features, features1: Features) -> Matches:
        if not len(features0) or not len(features1):
            return Matches(np.empty((0, 2), np.int32), np.empty(0, np.float32))
        points0, points1, layer = self._transform(self._points(features0), self._points(features1))
        return assign(
            self.network.log_assignment[layer], points0, points1, self.architecture.filter_threshold
        )

    def _points(self, features: Features) -> Points:
        size = torch.tensor(features.size, dtype=torch.float32)
        centred = (torch.from_numpy(features.keypoints) - size / 2) / (size.max() / 2)
        angles = self.network.posenc.Wr(centred.to(self.device))
        turns = torch.stack([angles.cos(), angles.sin()])
        states = self.network.input_proj(torch.from_numpy(features.descriptors).to(self.device).float())
        return Points(states, turns, torch.arange(len(features), device=self.device))

    def _transform(self, points0: Points, points1: Points) -> tuple[Points, Points, int]:
        """Run the layers until enough points are sure; returns the survivors and the last layer run."""
        total = len(points0.indices) + len(points1.indices)
        for layer, (within, across) in enumerate(self.layers):
            states0, states1 = across(
                within(points0.states, points0.turns), within(points1.states, points1.turns)
            )
            points0, points1 = points0.become(states0), points1.become(states1)
            if layer == len(self.layers) - 1:
                break
            if self._sure(layer, points0, points1, total):
                break
            points0, points1 = self._prune(layer, points0), self._prune(layer, points1)
            if not len(points0.indices) or not len(points1.indices):
                break
        return points0, points1, layer

    def _confidences(self, layer: int, points: Points) -> Tensor:
        return torch.sigmoid(self.network.token_confidence[layer].token[0](points.states))[:, 0]

    def _sure(self, layer: int, points0: Points, points1: Points, total: int) -> bool:
        if self.architecture.depth_confidence <= 0:
            return False
        confidences = torch.cat([self._confidences(layer, points0), self._confidences(layer, points1)])
        unsure = (confidences < self.architecture.confidence_threshold(layer)).sum()
        return bool(1 - unsure / total > self.architecture.depth_confidence)

    def _prune(self, layer: int, points: Points) -> Points:
        """Drop the points that are sure of having no match."""
        if self.architecture.width_confidence <= 0 or len(points.indices) <= self.fewest_to_prune:
            return points
        matchability = torch.sigmoid(self.network.log_assignment[layer].matchability(points.states))[:, 0]
        kept = matchability > 1 - self.architecture.width_confidence
        if self.architecture.depth_confidence > 0:
            kept |= self._confidences(layer, points) <= self.architecture.confidence_threshold(layer)
        return points.select(kept.nonzero()[:, 0])


def assign(head: Any, points0: Points, points1: Points, threshold: float) -> Matches:
    """Mutually best pairs by the double softmax of their similarity (equations 6 to 8)."""
    projected0, projected1 = head.final_proj(points0.states), head.final_proj(points1.states)
    similarity = (projected0 / projected0.shape[1] ** 0.5) @ projected1.T
    matchability0 = functional.logsigmoid(head.matchability(points0.states))
    matchability1 = functional.logsigmoid(head.matchability(points1.states))
    offset0 = matchability0 - torch.logsumexp(similarity, dim=1, keepdim=True)
    offset1 = (matchability1 - torch.logsumexp(similarity, dim=0)[:, None]).T
    scores = similarity.mul_(2).add_(offset0).add_(offset1)
    best, partner = scores.max(dim=1)
    # The maximum without its place is much cheaper down the columns.
    mutual = best == scores.amax(dim=0)[partner]
    kept = (mutual & (best > math.log(threshold))).nonzero()[:, 0]
    indices = torch.stack([points0.indices[kept], points1.indices[partner[kept]]], dim=1)
    return Matches(indices.cpu().numpy().astype(np.int32), best[kept].exp().cpu().numpy())
