"""One vector per photo, so that similar photos can be found among thousands without matching them."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.sparse import csr_array

from gim_sfm.errors import InputError
from gim_sfm.types import Features

_SAMPLE = 100_000
"""Most local descriptors that the codebook is learnt from; 50 MB at 128 dimensions."""

_BLOCK = 8192
"""Local descriptors compared with the codebook at once."""

_PER_PHOTO = 500
"""Most local descriptors that one photo gives to the sample; neighbours in space say much the same."""

_TEACHERS = 1000
"""Photos that a codebook is learnt from at most."""

_ROUNDS = 25
"""Rounds of k-means; the centres hardly move after that."""


FeatureReader = Callable[[str], Features]
"""Gives the local features of a photo by its name."""


class GlobalDescriptor(Protocol):
    """Describes a photo by one vector of unit length; similar photos have a large scalar product."""

    def describe(self, features: Features) -> Float32[np.ndarray, " d"]:
        """The vector of one photo, from its local features."""
        ...


@dataclass(frozen=True)
class Vlad:
    """Residuals of the local descriptors to the words of a codebook, learnt from the collection itself.

    Jegou et al., "Aggregating local descriptors into a compact image representation" (CVPR 2010), with the
    per-word normalisation of Arandjelovic and Zisserman, "All about VLAD" (CVPR 2013), after a square root.

    Attributes:
        words: Centres of the codebook.
    """

    words: Float32[np.ndarray, "k d"]

    @classmethod
    def fit(cls, photos: Iterable[Features], *, words: int = 64, seed: int = 0) -> Self:
        """Learns a codebook from photos.

        Args:
            photos: Read one at a time; of a large collection a few hundred evenly spread photos will do.
            words: Size of the codebook.
            seed: The same photos and seed give the same codebook.

        Raises:
            InputError: The photos have no features at all.
        """
        random = np.random.default_rng(seed)
        sample = _sample(photos, random)
        if not len(sample):
            raise InputError(
                "No photo has features to learn a codebook from.",
                remedy="check that the photos show something",
            )
        return cls(_cluster(sample, min(words, len(sample)), random))

    def describe(self, features: Features) -> Float32[np.ndarray, " k*d"]:
        """The residual sums of one photo as a vector of unit length; zeros for a photo without features."""
        descriptors = _unit(features.descriptors)
        nearest = _nearest(descriptors, self.words)
        residuals = _sum_by_word(descriptors, nearest, len(self.words))
        residuals -= np.bincount(nearest, minlength=len(self.words))[:, None] * self.words
        balanced = _unit(np.sign(residuals) * np.sqrt(np.abs(residuals)))
        return _unit(balanced.reshape(1, -1)).reshape(-1)


def describe_collection(
    names: Sequence[str], features: FeatureReader, *, words: int = 64, seed: int = 0
) -> Float32[np.ndarray, "n d"]:
    """VLAD of every photo, by a codebook learnt from photos spread evenly over the collection.

    Args:
        names: All photos.
        features: Reads one photo's features; called for one photo at a time.
        words: Size of the codebook.
        seed: Of the codebook.

    Returns:
        One row a name, of unit length: 330 MB for 10 000 photos, 64 words and 128 dimensions.

    Raises:
        InputError: No photo has features.
    """
    vlad = Vlad.fit((features(name) for name in teachers(names)), words=words, seed=seed)
    return describe_all((features(name) for name in names), vlad, count=len(names))


def teachers(names: Sequence[str]) -> Sequence[str]:
    """Photos spread evenly over a collection, enough to learn a codebook from."""
    return names[:: math.ceil(len(names) / _TEACHERS)] if names else names


def describe_all(
    photos: Iterable[Features], descriptor: GlobalDescriptor, *, count: int
) -> Float32[np.ndarray, "count d"]:
    """One row a photo, reading one photo's features at a time."""
    rows = np.empty((0, 0), np.float32)
    for index, features in enumerate(photos):
        row = descriptor.describe(features)
        if index == 0:
            rows = np.empty((count, len(row)), np.float32)
        rows[index] = row
    return rows


def _sample(photos: Iterable[Features], random: np.random.Generator) -> Float32[np.ndarray, "n d"]:
    """Some descriptors of every photo, the same number of each, fewer when memory would run over."""
    kept: list[Float[np.ndarray, "n d"]] = []
    share = _PER_PHOTO
    for features in photos:
        kept.append(features.descriptors[random.permutation(len(features))[:share]])
        if sum(map(len, kept)) > _SAMPLE:
            share = max(1, share // 2)
            kept = [rows[:share] for rows in kept]
    return _unit(np.concatenate(kept)) if kept else np.empty((0, 0), np.float32)


def _cluster(
    sample: Float32[np.ndarray, "n d"], count: int, random: np.random.Generator
) -> Float32[np.ndarray, "k d"]:
    """k-means by Lloyd's rounds; a word that nobody chooses moves to a random descriptor."""
    words = sample[random.choice(len(sample), count, replace=False)]
    for _ in range(_ROUNDS):
        nearest = _nearest(sample, words)
        members = np.bincount(nearest, minlength=count)
        words = _sum_by_word(sample, nearest, count) / np.maximum(members, 1)[:, None]
        words[members == 0] = sample[random.integers(len(sample), size=int((members == 0).sum()))]
    return words


def _nearest(rows: Float32[np.ndarray, "n d"], words: Float32[np.ndarray, "k d"]) -> Int64[np.ndarray, " n"]:
    offsets = (words**2).sum(axis=1) / 2
    blocks = np.split(rows, range(_BLOCK, len(rows), _BLOCK))
    nearest: Int64[np.ndarray, " n"] = np.concatenate(
        [np.argmax(block @ words.T - offsets, axis=1) for block in blocks]
    )
    return nearest


def _sum_by_word(
    rows: Float32[np.ndarray, "n d"], nearest: Int64[np.ndarray, " n"], count: int
) -> Float32[np.ndarray, "k d"]:
    chosen = csr_array(
        (np.ones(len(rows), np.float32), nearest, np.arange(len(rows) + 1)), (len(rows), count)
    )
    sums: Float32[np.ndarray, "k d"] = chosen.T @ rows
    return sums


def _unit(rows: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """Rows of length one; rows of zeros stay."""
    rows = np.asarray(rows, np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, np.float32(1))
