"""Which pairs of a collection are matched: every strategy under one roof."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from gim_sfm import cascade, pair_choice, pair_file, pairs, retrieval
from gim_sfm.errors import SettingsError
from gim_sfm.images import PhotoHeader
from gim_sfm.progress import stage
from gim_sfm.recipe import PairingSettings
from gim_sfm.sfm.known import read_model, read_poses
from gim_sfm.store import FeatureStore
from gim_sfm.types import Pair


@dataclass(frozen=True, slots=True)
class Collection:
    """What the choice of pairs can go by.

    Attributes:
        names: The photos, each with features.
        headers: What their files say of themselves.
        features: Their features.
        poses: Known poses, where the person gave some.
        seed: For the codebook of retrieval.
    """

    names: Sequence[str]
    headers: Mapping[str, PhotoHeader]
    features: FeatureStore
    poses: Path | None
    seed: int


@dataclass(frozen=True, slots=True)
class PairChoice:
    """The pairs to match.

    Attributes:
        pairs: In canonical order.
        method: The strategy that chose them.
        told: A sentence for people: what was picked, and why.
    """

    pairs: list[Pair]
    method: str
    told: str


Strategy = Callable[[PairingSettings, Collection], list[Pair]]


def choose_pairs(settings: PairingSettings, collection: Collection) -> PairChoice:
    """Chooses the pairs to match.

    Raises:
        SettingsError: The strategy needs a file that was not given.
        InputError: That file cannot be used, or the photos lack what the strategy goes by.
    """
    method, reason = settings.pairs, "as asked"
    if method == "auto":
        sizes = {name: header.size for name, header in collection.headers.items()}
        picked = pair_choice.choose(collection.names, sizes)
        method, reason = picked.method, picked.reason
    chosen = _STRATEGIES[method](settings, collection)
    lonely = len(pairs.without(collection.names, chosen))
    alone = f"; {lonely} photos are in no pair" if lonely else ""
    told = f"{len(chosen)} pairs of {len(collection.names)} photos chosen by {method} ({reason}){alone}"
    return PairChoice(chosen, method, told)


def _exhaustive(_settings: PairingSettings, collection: Collection) -> list[Pair]:
    return pairs.exhaustive(collection.names)


def _cascade(settings: PairingSettings, collection: Collection) -> list[Pair]:
    to_compare = cascade.candidates(collection.names, collection.features.read, seed=collection.seed)
    with stage("Comparing pairs", len(to_compare), "pair") as advance:
        counts = cascade.count_matches(to_compare, collection.features.read, advance=advance)
    return cascade.promising(counts, collection.names, best=settings.neighbours, minimum=cascade.MINIMUM)


def _sequential(settings: PairingSettings, collection: Collection) -> list[Pair]:
    return pairs.sequential(
        collection.names,
        window=settings.overlap,
        descriptors=_global_descriptors(collection) if settings.loops else None,
    )


def _retrieval(settings: PairingSettings, collection: Collection) -> list[Pair]:
    return pairs.retrieval(collection.names, _global_descriptors(collection), neighbours=settings.neighbours)


def _spatial(settings: PairingSettings, collection: Collection) -> list[Pair]:
    places = {
        name: (header.gps[0], header.gps[1], header.gps[2] or 0.0) if header.gps else None
        for name, header in collection.headers.items()
    }
    near = pairs.spatial(
        collection.names, places, max_distance=settings.max_distance, neighbours=settings.neighbours
    )
    unplaced = [name for name in collection.names if places[name] is None]
    if not unplaced:
        return near
    alike = pairs.retrieval(
        collection.names,
        _global_descriptors(collection),
        neighbours=settings.neighbours,
        queries=unplaced,
    )
    return pairs.union(collection.names, near, alike)


def _poses(settings: PairingSettings, collection: Collection) -> list[Pair]:
    path = _required(settings.pairs_model or collection.poses, "poses", "--pairs-model or --poses")
    known = {name: view.cam_from_world.matrix() for name, view in read_poses(path).items()}
    return pairs.from_poses(
        collection.names, known, neighbours=settings.neighbours, max_angle=settings.max_angle
    )


def _covisible(settings: PairingSettings, collection: Collection) -> list[Pair]:
    model = read_model(_required(settings.pairs_model, "covisible", "--pairs-model"))
    seen = {
        image.name: [point.point3D_id for point in image.get_observation_points2D()]
        for image in model.images.values()
    }
    return pairs.covisible(collection.names, seen, neighbours=settings.neighbours)


def _file(settings: PairingSettings, collection: Collection) -> list[Pair]:
    return pair_file.from_file(_required(settings.pairs_file, "file", "--pairs-file"), collection.names)


_STRATEGIES: Mapping[str, Strategy] = {
    "exhaustive": _exhaustive,
    "cascade": _cascade,
    "sequential": _sequential,
    "retrieval": _retrieval,
    "spatial": _spatial,
    "poses": _poses,
    "covisible": _covisible,
    "file": _file,
}


def _global_descriptors(collection: Collection) -> Float32[np.ndarray, "n d"]:
    return retrieval.describe_collection(collection.names, collection.features.read, seed=collection.seed)


def _required(path: Path | None, strategy: str, flag: str) -> Path:
    if path is None:
        raise SettingsError(f"Pairs by {strategy} need a file to go by.", remedy=f"Name it with {flag}.")
    return path
