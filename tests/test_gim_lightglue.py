from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from kornia.feature import LightGlue
from parity_kit import expected, grey_photo, largest_gap, made_weights, needs_kit, points_of
from torch.nn import functional

from gim_sfm.errors import WeightsError
from gim_sfm.matchers.lightglue import (
    GIM_LIGHTGLUE,
    LIGHTGLUE,
    SUPERPOINT_LIGHTGLUE,
    Architecture,
    LightGlueMatcher,
    attend,
    log_assignment,
    split_checkpoint,
)
from gim_sfm.matchers.superpoint import SuperPointDetector
from gim_sfm.types import Features, Matches

CPU = torch.device("cpu")
OFFICIAL_CENTRE = np.float32(0.5)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def matcher() -> LightGlueMatcher:
    return LightGlueMatcher(
        made_weights("gim_lightglue"), device=CPU, precision=torch.float32, architecture=GIM_LIGHTGLUE
    )


@pytest.fixture(scope="module")
def detector() -> SuperPointDetector:
    return SuperPointDetector(
        made_weights("gim_lightglue"),
        device=CPU,
        precision=torch.float32,
        max_keypoints=2048,
        image_size=320,
    )


def features_of(keypoints: np.ndarray, descriptors: np.ndarray, size: tuple[int, int]) -> Features:
    ones = np.ones(len(keypoints), np.float32)
    return Features(keypoints.astype(np.float32), ones, descriptors, ones, size)


def detect(detector: SuperPointDetector, grey: np.ndarray) -> Features:
    """Features of an official network input, with descriptors in single precision as it has them."""
    height, width = grey.shape[2:]
    with torch.inference_mode():
        found, descriptors = detector.find(torch.from_numpy(grey), torch.tensor([[width, height]]))
    return features_of(found.places.numpy(), descriptors.numpy(), (width, height))


def joined(points0: np.ndarray, points1: np.ndarray, scores: np.ndarray) -> dict[tuple[float, ...], float]:
    """Scores by the four coordinates of each match."""
    rows = np.hstack([points0, points1]).astype(np.float64).round(3).tolist()
    return {tuple(row): float(score) for row, score in zip(rows, scores, strict=True)}


def matched(features0: Features, features1: Features, matches: Matches) -> dict[tuple[float, ...], float]:
    points0 = features0.keypoints[matches.indices[:, 0]] + OFFICIAL_CENTRE
    return joined(points0, features1.keypoints[matches.indices[:, 1]] + OFFICIAL_CENTRE, matches.scores)


def check(own: dict[Any, float], official: dict[Any, float], *, share: float, gap: float) -> None:
    """Matches agree but for a share, and the scores of those that do but for a gap."""
    assert len(own.keys() ^ official.keys()) <= share * len(official)
    assert max(abs(own[key] - official[key]) for key in own.keys() & official.keys()) < gap


# ---------------------------------------------------------------------------------------- parity


@needs_kit
def test_all_layers_are_the_official_ones(matcher):
    official = expected("gim_lightglue_same")
    width, height = 320, 240
    # The official code takes the image's height for its width. That shifts all keypoints alike, and it only
    # matters for this comparison of what lies inside.
    swapped = np.array([width - height, height - width], np.float32) / 2
    pair = tuple(
        features_of(
            official[f"keypoints{side}"][0] + swapped, official[f"descriptors{side}"][0], (width, height)
        )
        for side in (0, 1)
    )
    with torch.inference_mode():
        batch = matcher._batch([pair])
        turns = batch.points0.turns.repeat_interleave(2, dim=-1)[:, :, None, ::16]
        # Angles reach hundreds of radians, in which single precision resolves 3e-5.
        assert largest_gap(turns, official["posenc0_every16"]) < 1e-4
        points0, points1 = batch.points0, batch.points1
        for layer, (within, across) in enumerate(matcher.layers):
            points0, points1 = across(within(points0), within(points1))
            if layer in (0, 4, 8):
                assert largest_gap(points0.states[:, ::16], official[f"layer{layer}_desc0_every16"]) < 1e-5
                assert largest_gap(points1.states[:, ::16], official[f"layer{layer}_desc1_every16"]) < 1e-5
        head = matcher.network.log_assignment[8]
        scores = log_assignment(head, points0.states[0], points1.states[0])
        unmatched = functional.logsigmoid(-head.matchability(points0.states[0]))[:, 0]
    assert largest_gap(scores[:512:4, :512:4], official["log_assignment_top_left_512_stride4"][0]) < 8e-3
    assert largest_gap(unmatched, official["log_assignment_dustbin_col"][0, :-1]) < 8e-3


@needs_kit
@pytest.mark.parametrize(("pair", "prefix"), [("same", ""), ("diff", ""), ("pad", "nopad_")])
def test_matches_of_official_inputs_are_the_official_ones(detector, matcher, pair, prefix):
    official = expected(f"gim_lightglue_{pair}")
    features = [detect(detector, official[f"gray{side}"]) for side in (0, 1)]
    own = matched(*features, matcher.match([tuple(features)])[0])
    chosen = official[f"{prefix}matches"]
    points0, points1 = (official[f"{prefix}keypoints{side}"][0][chosen[:, side]] for side in (0, 1))
    theirs = joined(points0, points1, official[f"{prefix}scores"])
    check(own, theirs, share=0.002, gap=5e-4)
    if not prefix:
        scale0, scale1 = (official[f"scale{side}"] for side in (0, 1))
        told = joined(official["mkpts0"] / scale0, official["mkpts1"] / scale1, official["mconf"])
        check(own, told, share=0.002, gap=5e-4)


@needs_kit
def test_matches_of_files_are_the_official_ones(detector, matcher):
    official = expected("gim_lightglue_same")
    features = detector.extract([grey_photo("img0"), grey_photo("img1")])
    own = matched(*features, matcher.match([tuple(features)])[0])
    # Features leave the detector with descriptors in half precision, which the official demo's do not.
    theirs = joined(official["mkpts0"], official["mkpts1"], official["mconf"])
    check(own, theirs, share=0.01, gap=2e-2)


@needs_kit
@pytest.mark.parametrize("size", ["as given", "swapped"])
def test_taking_height_for_width_changes_no_match(detector, matcher, size):
    official = expected("gim_lightglue_same")
    features = [detect(detector, official[f"gray{side}"]) for side in (0, 1)]
    if size == "swapped":
        features = [replace(each, size=each.size[::-1]) for each in features]
    own = matched(*features, matcher.match([tuple(features)])[0])
    check(own, joined(official["mkpts0"], official["mkpts1"], official["mconf"]), share=0.002, gap=5e-4)


@needs_kit
def test_hloc_matches_are_ours_of_descriptors_in_half_precision(detector, matcher):
    official = expected("hloc_gim_lightglue")
    features = detector.extract([grey_photo("img0"), grey_photo("img1")])
    own = matched(*features, matcher.match([tuple(features)])[0])
    partner = official["match__img0.png__img1.png__matches0"].astype(int)
    row = np.flatnonzero(partner >= 0)
    theirs = joined(
        official["feat__img0.png__keypoints"][row],
        official["feat__img1.png__keypoints"][partner[row]],
        official["match__img0.png__img1.png__matching_scores0"][row],
    )
    # Its scores are in half precision too: steps of 5e-4 below 1.
    check(own, theirs, share=0.002, gap=1e-3)


@needs_kit
def test_the_whole_file_is_used_and_nothing_else_is_let_in(matcher):
    weights = made_weights("gim_lightglue")
    assert len(weights) == 275
    detector_part, matcher_part = split_checkpoint(weights)
    assert (len(detector_part), len(matcher_part)) == (24, 251)
    assert len(matcher.network.state_dict()) == 251 + 1  # kornia keeps the schedule of its thresholds

    def load(state: dict[str, torch.Tensor]) -> LightGlueMatcher:
        return LightGlueMatcher(state, device=CPU, precision=torch.float32, architecture=GIM_LIGHTGLUE)

    lacking = {key: value for key, value in weights.items() if key != "model.posenc.Wr.weight"}
    with pytest.raises(RuntimeError, match=r"posenc\.Wr\.weight"):
        load(lacking)
    with pytest.raises(RuntimeError, match=r"unheard_of"):
        load({**weights, "model.unheard_of": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"optimizer\.state"):
        load({**weights, "optimizer.state": torch.zeros(1)})


# -------------------------------------------------------------------------------------- batching

SHAPE = Architecture(input_dim=32, descriptor_dim=32, layers=4, heads=2, filter_threshold=1e-4)
FULL = replace(SHAPE, depth_confidence=-1, width_confidence=-1)
PRUNING = replace(SHAPE, depth_confidence=-1, width_confidence=0.9)
STOPPING = replace(SHAPE, depth_confidence=0.45, width_confidence=-1)
BOTH = replace(SHAPE, depth_confidence=0.45, width_confidence=0.55)


def drawn_matcher(architecture: Architecture, precision: torch.dtype = torch.float32) -> LightGlueMatcher:
    network: Any = LightGlue(
        None,  # type: ignore[arg-type]
        input_dim=architecture.input_dim,
        descriptor_dim=architecture.descriptor_dim,
        n_layers=architecture.layers,
        num_heads=architecture.heads,
    )
    generator = torch.Generator().manual_seed(2)
    state = {}
    for key, value in network.state_dict().items():
        spread = 0.1 if value.ndim < 2 else 1.2 * value[0].numel() ** -0.5
        state[key] = spread * torch.randn(value.shape, generator=generator)
        if key.endswith("ffn.1.weight"):
            state[key] += 1
        if ".token." in key:  # so that some pairs are sure of more of their points than others
            state[key] = state[key] * 4 + (1 + int(key.split(".")[1]) if key.endswith("bias") else 0)
        if key.endswith("matchability.bias"):
            state[key] = torch.full_like(value, 0.5)
    state["confidence_thresholds"] = network.confidence_thresholds
    return LightGlueMatcher(state, device=CPU, precision=precision, architecture=architecture)


def drawn_pair(seed: int, counts: tuple[int, int]) -> tuple[Features, Features]:
    random = np.random.default_rng(seed)
    pool = random.normal(size=(max(*counts, 1), 32)) * 0.2 + random.normal(size=32) * 0.2
    places = random.uniform(0, 200, (max(*counts, 1), 2))

    def side(count: int) -> Features:
        rows = random.permutation(len(pool))[:count]
        return features_of(places[rows], pool[rows].astype(np.float16), (200, 150 + seed))

    return side(counts[0]), side(counts[1])


COUNTS = [(60, 60), (80, 40), (0, 30), (60, 60), (1, 75), (33, 0), (100, 90), (7, 5)]


@pytest.mark.parametrize(
    "architecture", [FULL, PRUNING, STOPPING, BOTH], ids=["full", "prune", "stop", "both"]
)
@pytest.mark.parametrize("counts", [COUNTS, [(64, 64)] * 8], ids=["uneven", "even"])
def test_a_batch_gives_the_matches_of_single_pairs(architecture, counts, monkeypatch):
    matcher = drawn_matcher(architecture)
    pairs = [drawn_pair(seed, count) for seed, count in enumerate(counts)]
    single = matcher.match(pairs)
    layers, assign = [], matcher._assign
    monkeypatch.setattr(matcher, "_assign", lambda layer, *rest: layers.append(layer) or assign(layer, *rest))
    together = matcher.match_together(pairs)
    assert sum(len(matches) for matches in single) > 10
    for one, other in zip(single, together, strict=True):
        assert one.indices.tolist() == other.indices.tolist()
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    if architecture.depth_confidence > 0 and counts is COUNTS:
        assert len(set(layers)) > 1, "pairs should stop at different layers"


@needs_kit
def test_a_batch_of_gims_pairs_gives_the_matches_of_single_pairs(detector, matcher):
    same, pad = (expected(f"gim_lightglue_{name}") for name in ("same", "pad"))
    first = [detect(detector, same[f"gray{side}"]).select(np.arange(600)) for side in (0, 1)]
    second = [detect(detector, pad[f"gray{side}"]) for side in (0, 1)]
    pairs = [tuple(first), tuple(second), (first[0], second[1])]
    for one, other in zip(matcher.match(pairs), matcher.match_together(pairs), strict=True):
        assert one.indices.tolist() == other.indices.tolist()
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def test_an_accelerator_takes_pairs_in_batches(monkeypatch):
    matcher = drawn_matcher(FULL)
    sizes: list[int] = []
    monkeypatch.setattr(matcher, "match_together", lambda some: sizes.append(len(some)) or [None] * len(some))
    pairs = [drawn_pair(0, (3, 3))] * 20
    assert len(matcher.match(pairs)) == 20
    assert sizes == [1] * 20
    matcher.device = torch.device("meta")
    sizes.clear()
    assert len(matcher.match(pairs)) == 20
    assert sizes == [16, 4]
    assert matcher.match([]) == []


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_keys_that_are_not_present_draw_no_attention(precision):
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (
        torch.randn(2, 3, count, 8, generator=generator).to(precision) for count in (5, 9, 9)
    )
    present = torch.arange(9) < torch.tensor([[9], [4]])
    message = attend(queries, keys, values, present)
    assert message.shape == (2, 5, 24)
    torch.testing.assert_close(message[:1], attend(queries[:1], keys[:1], values[:1]))
    torch.testing.assert_close(message[1:], attend(queries[1:], keys[1:, :, :4], values[1:, :, :4]))


def test_descriptors_as_wide_as_the_transformer_are_not_projected():
    assert isinstance(drawn_matcher(FULL).network.input_proj, torch.nn.Identity)
    assert (SUPERPOINT_LIGHTGLUE.input_dim, GIM_LIGHTGLUE.input_dim, LIGHTGLUE.input_dim) == (256, 256, 128)
    assert replace(SUPERPOINT_LIGHTGLUE, input_dim=128) == LIGHTGLUE
    assert (GIM_LIGHTGLUE.depth_confidence, GIM_LIGHTGLUE.width_confidence) == (-1, -1)


def test_points_of_sets_are_told_apart_to_a_thousandth():
    assert len(points_of(np.array([[1.0, 2.0], [1.0004, 2.0], [1.002, 2.0]]))) == 2
