"""LoFTR's transformer (Sun et al., CVPR 2021), from the layers of kornia's network.

States and attention are in single precision; the linear layers, which do most of the work, need not be.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class Layer:
    """Linear attention (Katharopoulos et al., ICML 2020) and what a cell makes of its message."""

    def __init__(self, layer: Any, precision: torch.dtype) -> None:
        self.heads = layer.nhead
        self.precision = precision
        self.query = layer.q_proj.weight.to(precision)
        self.source = torch.cat([layer.k_proj.weight, layer.v_proj.weight]).to(precision)
        self.merge = layer.merge.weight.to(precision)
        self.first, self.last = (layer.mlp[place].weight.to(precision) for place in (0, 2))
        self.norms = [(norm.weight, norm.bias) for norm in (layer.norm1, layer.norm2)]

    def __call__(self, cells: Tensor, source: Tensor) -> Tensor:
        """New states of cells that look at others: (b, m, d), (b, n, d) to (b, m, d), single precision."""
        short = cells.to(self.precision)
        queries = functional.linear(short, self.query)
        keys, values = functional.linear(source.to(self.precision), self.source).chunk(2, dim=-1)
        message = attend(*(self._split(part) for part in (queries, keys, values)))
        message = self._normed(0, functional.linear(message.to(self.precision), self.merge))
        hidden = functional.linear(torch.cat([short, message.to(self.precision)], dim=-1), self.first)
        return cells + self._normed(1, functional.linear(functional.relu_(hidden), self.last))

    def _split(self, rows: Tensor) -> Tensor:
        batch, count, width = rows.shape
        return rows.float().reshape(batch, count, self.heads, width // self.heads).transpose(1, 2)

    def _normed(self, place: int, rows: Tensor) -> Tensor:
        return functional.layer_norm(rows.float(), rows.shape[-1:], *self.norms[place])


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Linear attention with elu + 1 for a kernel; (b, heads, m or n, d) to (b, m, heads * d)."""
    queries, keys = functional.elu(queries) + 1, functional.elu(keys) + 1
    count = keys.shape[2]
    # Means instead of sums, which would outgrow short formats; the published floor shrinks with them.
    summary = keys.transpose(2, 3) @ (values / count)
    weight = queries @ keys.mean(dim=2)[..., None] + 1e-6 / count
    return ((queries @ summary) / weight).transpose(1, 2).flatten(2)


class Transformer:
    """Layers that let cells look at their own photo and the other one in turn."""

    def __init__(self, network: Any, precision: torch.dtype) -> None:
        self.layers = [Layer(layer, precision) for layer in network.layers]
        self.across = [name == "cross" for name in network.layer_names]

    def __call__(self, cells0: Tensor, cells1: Tensor) -> tuple[Tensor, Tensor]:
        """New states of both sides, (b, m, d) and (b, n, d)."""
        for layer, across in zip(self.layers, self.across, strict=True):
            cells0 = layer(cells0, cells1 if across else cells0)
            # The second side looks at what the first has just become; so the weights were trained.
            cells1 = layer(cells1, cells0 if across else cells1)
        return cells0, cells1
