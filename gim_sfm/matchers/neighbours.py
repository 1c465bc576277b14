"""Matching by nearest descriptors, in blocks, so that memory stays bounded for any number of keypoints."""

import torch
from torch import Tensor

BLOCK_ROWS = 1024


def mutual_nearest(
    descriptors0: Tensor, descriptors1: Tensor, *, max_ratio: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Rows that are each other's most similar, by the inner product.

    Args:
        descriptors0: One descriptor a row, n x d.
        descriptors1: m x d.
        max_ratio: Largest ratio of the distances to the nearest and to the second nearest descriptor, asked
            in both directions (Lowe, IJCV 2004, section 7.1); for unit descriptors. 1 asks nothing.

    Returns:
        Index pairs (k x 2, int64, first column ascending) and their inner products (k).
    """
    if not len(descriptors0) or not len(descriptors1):
        device = descriptors0.device
        return torch.empty(0, 2, dtype=torch.int64, device=device), torch.empty(0, device=device)
    forth, similarity, clear0 = _nearest(descriptors0, descriptors1, max_ratio)
    back, _, clear1 = _nearest(descriptors1, descriptors0, max_ratio)
    rows = torch.arange(len(forth), device=forth.device)
    kept = (back[forth] == rows) & clear0 & clear1[forth]
    return torch.stack([rows[kept], forth[kept]], dim=1), similarity[kept]


def _nearest(queries: Tensor, others: Tensor, max_ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Most similar other row of each query row, the similarity, and whether it passes the ratio test."""
    parts = [_nearest_in_block(block, others, max_ratio) for block in torch.split(queries, BLOCK_ROWS)]
    indices, similarities, clear = zip(*parts, strict=True)
    return torch.cat(indices), torch.cat(similarities), torch.cat(clear)


def _nearest_in_block(block: Tensor, others: Tensor, max_ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    similarities = block @ others.T
    best, index = similarities.max(dim=1)
    if max_ratio >= 1 or len(others) < 2:
        return index, best, torch.ones_like(index, dtype=torch.bool)
    second = similarities.scatter_(1, index[:, None], -torch.inf).amax(dim=1)
    # Of unit vectors, the squared distance is 2 - 2 <a, b>.
    return index, best, (1 - best).clamp(min=0) <= max_ratio**2 * (1 - second)
