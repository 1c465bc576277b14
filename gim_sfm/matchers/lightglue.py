"""LightGlue and its smaller sibling LighterGlue: sparse matching by a transformer that stops when it is sure.

The published weights, run by a loop of our own: in half precision where the processor gains from it, linear
layers that follow each other multiplied out beforehand. A processor takes one pair at a time; accelerators
take several, each of which stops and drops points by itself.
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
from torch.nn.utils.rnn import pad_sequence

from gim_sfm.errors import WeightsError
from gim_sfm.matchers.contract import FeaturePair
from gim_sfm.types import Features, Matches

QUERIES_AT_ONCE = 1024
PAIRS_AT_ONCE = 16
"""On an accelerator; one pair of 2048 keypoints is too little work for it."""


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
SUPERPOINT_LIGHTGLUE = Architecture(input_dim=256)
GIM_LIGHTGLUE = Architecture(input_dim=256, depth_confidence=-1, width_confidence=-1)
"""GIM trained only what the last layer gives: what would stop it earlier or drop points is in the file, but
means nothing."""
LIGHTERGLUE = Architecture(
    input_dim=64, descriptor_dim=96, layers=6, heads=1, depth_confidence=-1, width_confidence=0.95
)


def split_checkpoint(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """SuperPoint's and LightGlue's weights out of GIM's file, which holds both.

    Raises:
        WeightsError: Some belong to neither.
    """
    detector, matcher = (_within(state_dict, prefix) for prefix in ("superpoint.", "model."))
    strange = [key for key in state_dict if not key.startswith(("superpoint.", "model."))]
    if strange:
        raise WeightsError(
            f"Parameters that belong neither to SuperPoint nor to LightGlue: {', '.join(strange[:5])}",
            remedy="Name a file of GIM-LightGlue, in which every name starts with superpoint. or model.",
        )
    return detector, matcher


def _within(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}


def rename(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under kornia's names, whichever of the published files they come from.

    The first releases keep self and cross attention in two lists; GIM's and LighterGlue's files put the
    matcher beside the detector. What is not the matcher's is left out.
    """
    if any(key.startswith("model.") for key in state_dict):
        return split_checkpoint(state_dict)[1]
    renamed = {}
    for key, value in (_within(state_dict, "matcher.") or state_dict).items():
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


def attend(queries: Tensor, keys: Tensor, values: Tensor, present: Tensor | None = None) -> Tensor:
    """Softmax attention of queries that are scaled already.

    Args:
        queries: (..., heads, m, d).
        keys: (..., heads, n, d).
        values: (..., heads, n, d).
        present: Which keys there are, (..., n); None for all.

    Returns:
        (..., m, heads * d).
    """
    mask = None if present is None else present[..., None, None, :]
    if queries.device.type != "cpu" or queries.dtype == torch.float32:
        # Its fast routines want a batch.
        batch = [part.reshape(-1, *part.shape[-3:]) for part in (queries, keys, values)]
        message = functional.scaled_dot_product_attention(
            batch[0], batch[1], batch[2], attn_mask=mask, scale=1.0
        )
        return message.reshape(queries.shape).transpose(-3, -2).flatten(-2)
    # On a processor torch's fused attention gains nothing from short formats; plain products are faster.
    *outer, heads, count, width = queries.shape
    message = torch.empty(*outer, count, heads, width, dtype=queries.dtype)
    for place in np.ndindex(*outer, heads):
        hidden = None if present is None else ~present[place[:-1]]
        for start in range(0, count, QUERIES_AT_ONCE):
            rows = slice(start, start + QUERIES_AT_ONCE)
            products = queries[place][rows] @ keys[place].T
            if hidden is not None:
                products.masked_fill_(hidden, -torch.inf)
            message[(*place[:-1], rows, place[-1])] = functional.softmax(products, dim=-1) @ values[place]
    return message.flatten(-2)


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
        """New states, (b, n, d)."""
        hidden = self.first(torch.cat([points.to(message.dtype), message], dim=-1))
        hidden = functional.layer_norm(hidden, hidden.shape[-1:], self.norm.weight, self.norm.bias)
        return points + self.last(functional.gelu(hidden))


def _split_heads(rows: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """(b, n, parts * heads * d) -> parts of (b, heads, n, d)."""
    return rows.reshape(*rows.shape[:-1], parts, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


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

    def __call__(self, points: "Points") -> "Points":
        """The same points with new states."""
        queries, keys, values = _split_heads(self.project(points.states), 3, self.heads)
        turned = rotate(queries, points.turns), rotate(keys, points.turns)
        message = attend(turned[0], turned[1], values, points.present)
        return points.become(self.update(points.states, message))


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

    def __call__(self, points0: "Points", points1: "Points") -> tuple["Points", "Points"]:
        """The points of both photos with new states."""
        keys0, values0 = _split_heads(self.project(points0.states), 2, self.heads)
        keys1, values1 = _split_heads(self.project(points1.states), 2, self.heads)
        message0 = attend(keys0, keys1, values1, points1.present)
        message1 = attend(keys1, keys0, values0, points0.present)
        return (
            points0.become(self.update(points0.states, message0)),
            points1.become(self.update(points1.states, message1)),
        )


def rotate(channels: Tensor, turns: Tensor) -> Tensor:
    """Turn pairs of channels by angles of position: (b, heads, n, d) by the `turns` of `Points`."""
    cosines, sines = turns[:, :, None]
    first, second = channels.chunk(2, dim=-1)
    turned = torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
    return turned.to(channels.dtype)


@dataclass(frozen=True, slots=True)
class Points:
    """The points of one side of several pairs that are still in play, padded to the most of any pair.

    Attributes:
        states: (b, n, d), single precision.
        turns: Cosines and sines of their rotary encoding, (2, b, n, d / heads / 2), single precision.
        indices: Their places in the photo's list, (b, n).
        present: Where there is a point, not padding, (b, n); None for everywhere.
    """

    states: Tensor
    turns: Tensor
    indices: Tensor
    present: Tensor | None

    @property
    def counts(self) -> Tensor:
        """How many points each pair has, (b,)."""
        if self.present is None:
            return torch.full(self.indices.shape[:1], self.indices.shape[1], device=self.indices.device)
        return self.present.sum(dim=1)

    def where_present(self, told: Tensor) -> Tensor:
        """What is true of points, and false of padding, (b, n)."""
        return told if self.present is None else told & self.present

    def become(self, states: Tensor) -> "Points":
        """The same points with new states."""
        return Points(states, self.turns, self.indices, self.present)

    def of_pairs(self, places: list[int]) -> "Points":
        """Those of these pairs."""
        present = None if self.present is None else self.present[places]
        return Points(self.states[places], self.turns[:, places], self.indices[places], present)

    def select(self, kept: Tensor) -> "Points":
        """Those where this mask is true, (b, n)."""
        batch, length = kept.shape
        counts = kept.sum(dim=1)
        most, fewest = int(counts.max()), int(counts.min())
        order = torch.argsort(~kept, dim=1, stable=True)[:, :most]
        rows = (order + torch.arange(0, batch * length, length, device=order.device)[:, None]).flatten()
        return Points(
            states=self.states.flatten(0, 1)[rows].reshape(batch, most, self.states.shape[-1]),
            turns=self.turns.flatten(1, 2)[:, rows].reshape(2, batch, most, self.turns.shape[-1]),
            indices=self.indices.flatten()[rows].reshape(batch, most),
            present=_places_below(counts, most) if fewest < most else None,
        )


def _places_below(counts: Tensor, most: int) -> Tensor:
    """(b,) to (b, most): true before each count."""
    return torch.arange(most, device=counts.device) < counts[:, None]


@dataclass(slots=True)
class Batch:
    """Pairs that are still being matched.

    Attributes:
        pairs: Which they are.
        totals: How many points each had at first, (b,).
        points0: Of the first photos.
        points1: Of the second photos.
    """

    pairs: list[int]
    totals: Tensor
    points0: Points
    points1: Points

    def drop(self, dropped: list[bool]) -> None:
        """Take these pairs out."""
        places = [place for place, out in enumerate(dropped) if not out]
        if len(places) < len(dropped):
            self.pairs = [self.pairs[place] for place in places]
            self.totals = self.totals[places]
            self.points0, self.points1 = self.points0.of_pairs(places), self.points1.of_pairs(places)


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
        at_once = 1 if self.device.type == "cpu" else PAIRS_AT_ONCE
        blocks = (pairs[start : start + at_once] for start in range(0, len(pairs), at_once))
        return [matches for block in blocks for matches in self.match_together(block)]

    @torch.inference_mode()
    def match_together(self, pairs: Sequence[FeaturePair]) -> list[Matches]:
        """As `match`, in one batch; the matches of a pair do not depend on the others."""
        matches = [Matches(np.empty((0, 2), np.int32), np.empty(0, np.float32)) for _ in pairs]
        batch = self._batch(pairs)
        for layer, (within, across) in enumerate(self.layers):
            if not batch.pairs:
                break
            batch.points0, batch.points1 = across(within(batch.points0), within(batch.points1))
            sure = self._sure(layer, batch)
            for place in np.flatnonzero(sure):
                matches[batch.pairs[place]] = self._assign(layer, batch, int(place))
            batch.drop(sure)
            if batch.pairs:
                self._prune(layer, batch)
        return matches

    def _batch(self, pairs: Sequence[FeaturePair]) -> Batch:
        some = [place for place, pair in enumerate(pairs) if len(pair[0]) and len(pair[1])]
        if not some:
            none = torch.empty(0, device=self.device)
            return Batch([], none, *(Points(none, none, none, None),) * 2)
        points0, points1 = (self._points([pairs[place][side] for place in some]) for side in (0, 1))
        return Batch(some, points0.counts + points1.counts, points0, points1)

    def _points(self, features: Sequence[Features]) -> Points:
        counts = torch.tensor([len(each) for each in features])
        descriptors = _padded([torch.from_numpy(each.descriptors) for each in features]).to(self.device)
        centred = _padded([_centre(each) for each in features]).to(self.device)
        angles = self.network.posenc.Wr(centred)
        most = int(counts.max())
        present = _places_below(counts, most).to(self.device) if int(counts.min()) < most else None
        return Points(
            states=self.network.input_proj(descriptors.float()),
            turns=torch.stack([angles.cos(), angles.sin()]),
            indices=torch.arange(most, device=self.device).repeat(len(features), 1),
            present=present,
        )

    def _assign(self, layer: int, batch: Batch, place: int) -> Matches:
        sides = (batch.points0.of_pairs([place]), batch.points1.of_pairs([place]))
        states0, states1 = (side.states[side.where_present(side.indices >= 0)] for side in sides)
        scores = log_assignment(self.network.log_assignment[layer], states0, states1)
        rows, columns, best = mutually_best(scores, math.log(self.architecture.filter_threshold))
        indices = torch.stack([sides[0].indices[0, rows], sides[1].indices[0, columns]], dim=1)
        return Matches(indices.cpu().numpy().astype(np.int32), best.exp().cpu().numpy())

    def _confidences(self, layer: int, points: Points) -> Tensor:
        return torch.sigmoid(self.network.token_confidence[layer].token[0](points.states))[..., 0]

    def _sure(self, layer: int, batch: Batch) -> list[bool]:
        """Which pairs need no further layer."""
        if layer == len(self.layers) - 1:
            return [True] * len(batch.pairs)
        if self.architecture.depth_confidence <= 0:
            return [False] * len(batch.pairs)
        threshold = self.architecture.confidence_threshold(layer)
        unsure = sum(
            points.where_present(self._confidences(layer, points) < threshold).sum(dim=1)
            for points in (batch.points0, batch.points1)
        )
        sure: list[bool] = (1 - unsure / batch.totals > self.architecture.depth_confidence).tolist()
        return sure

    def _prune(self, layer: int, batch: Batch) -> None:
        """Drop the points that are sure of having no match, and the pairs that have no others."""
        if self.architecture.width_confidence <= 0:
            return
        batch.points0 = self._pruned(layer, batch.points0)
        batch.points1 = self._pruned(layer, batch.points1)
        batch.drop(((batch.points0.counts == 0) | (batch.points1.counts == 0)).tolist())

    def _pruned(self, layer: int, points: Points) -> Points:
        if points.indices.shape[1] <= self.fewest_to_prune:
            return points
        matchability = torch.sigmoid(self.network.log_assignment[layer].matchability(points.states))[..., 0]
        kept = matchability > 1 - self.architecture.width_confidence
        if self.architecture.depth_confidence > 0:
            kept |= self._confidences(layer, points) <= self.architecture.confidence_threshold(layer)
        kept |= (points.counts <= self.fewest_to_prune)[:, None]
        return points.select(points.where_present(kept))


def _centre(features: Features) -> Tensor:
    """Keypoints from the photo's middle, in halves of its longer side, (n, 2)."""
    size = torch.tensor(features.size, dtype=torch.float32)
    return (torch.from_numpy(features.keypoints) - size / 2) / (size.max() / 2)


def _padded(rows: list[Tensor]) -> Tensor:
    """Tensors of (n, d) as one of (b, most, d), with zeros."""
    if len(rows) == 1:
        return rows[0][None]
    padded: Tensor = pad_sequence(rows, batch_first=True)
    return padded


def log_assignment(head: Any, states0: Tensor, states1: Tensor) -> Tensor:
    """Logarithm of how likely each pair of points is a match, (m, n): the double softmax of equation 8."""
    projected0, projected1 = head.final_proj(states0), head.final_proj(states1)
    similarity = (projected0 / projected0.shape[1] ** 0.5) @ projected1.T
    matchability0 = functional.logsigmoid(head.matchability(states0))
    matchability1 = functional.logsigmoid(head.matchability(states1))
    offset0 = matchability0 - torch.logsumexp(similarity, dim=1, keepdim=True)
    offset1 = (matchability1 - torch.logsumexp(similarity, dim=0)[:, None]).T
    total: Tensor = similarity.mul_(2).add_(offset0).add_(offset1)
    return total


def mutually_best(scores: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and scores of the entries that are largest in both and above the threshold."""
    best, partner = scores.max(dim=1)
    # The maximum without its place is much cheaper down the columns.
    mutual = best == scores.amax(dim=0)[partner]
    rows = (mutual & (best > threshold)).nonzero()[:, 0]
    return rows, partner[rows], best[rows]
