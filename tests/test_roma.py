"""RoMa against the official GIM code's outputs and romatch's own pipeline, and what holds for any network."""

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from parity_kit import colour_photo, expected, largest_gap, made_weights, needs_kit

from gim_sfm.errors import SettingsError
from gim_sfm.matchers import roma, warping
from gim_sfm.matchers.networks.correlation import pixel_centres
from gim_sfm.matchers.networks.dkm import Estimate
from gim_sfm.matchers.networks.roma import Relation, build_network, locate_anchors
from gim_sfm.matchers.roma import GIM_ROMA, ROMA, SIDES_MULTIPLE, Flavour, Memory, RomaMatcher
from gim_sfm.matchers.warping import TwoWay, find_black, pair_up, sample_balanced, settle, to_correspondences
from gim_sfm.types import Photo

CPU = torch.device("cpu")
FLOW = 2e-5
LOGITS = {16: 7e-4, 8: 7e-4, 4: 7e-4, 2: 1e-3, 1: 2e-3}
CERTAINTY = 6e-4

OUTLIERS = 1e-3
"""Share of dense pixels that may differ, since an argmax decides."""

Weights = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights() -> Iterator[Weights]:
    """The kit's; 1.6 GB, so not left in its cache."""
    pytest.importorskip("romatch", reason="the package romatch is not installed")
    made = made_weights.__wrapped__
    both = made("gim_roma"), made("dinov2_vitl14")
    yield both
    for state in both:
        state.clear()


def load(weights: Weights, image_size: int, **more: Any) -> RomaMatcher:
    settings: dict[str, Any] = {"device": CPU, "precision": torch.float32, "image_size": image_size, **more}
    return RomaMatcher(*weights, **settings)


@pytest.fixture(scope="module")
def matcher(weights: Weights) -> Iterator[RomaMatcher]:
    """GIM's flavour at the kit's size, sampling as published."""
    made = load(weights, 224)
    made.half_density = True
    yield made
    vars(made).clear()


@dataclass(frozen=True)
class Trace:
    """What the network gives on the way, the way there and the way back as one batch."""

    patches: torch.Tensor
    coarse: torch.Tensor
    posterior: torch.Tensor
    answers: torch.Tensor
    passes: tuple[dict[int, Estimate], dict[int, Estimate]]


@pytest.fixture(scope="module")
def trace(matcher: RomaMatcher) -> Trace:
    canvases = [matcher.place(colour_photo(name)) for name in ("img0", "img1")]
    network, flavour = matcher.network, matcher.flavour
    with torch.inference_mode():
        patches = [network.see_patches(flavour.resize(canvas.pixels, matcher.low)) for canvas in canvases]
        a, b = (matcher.encoding_of(canvas) for canvas in canvases)
        ways: list[Any] = []
        for own, other in ((a, b), (b, a)):
            posterior = network.anchoring.process(own.coarse[16], other.coarse[16])
            answers = network.anchoring.answer(own.coarse[16], posterior)
            start = network.anchoring(own.coarse[16], other.coarse[16])
            low = list(network.refine(own.coarse, other.coarse, start, matcher.zooms[0]))
            high = list(network.refine(own.fine, other.fine, low[-1], matcher.zooms[1]))
            ways.append((posterior, answers, low, high))
    posteriors, answers, lows, highs = zip(*ways, strict=True)
    return Trace(
        torch.cat(patches),
        torch.cat([a.coarse[16], b.coarse[16]]),
        torch.cat(posteriors),
        torch.stack(answers),
        (
            {16 >> place: _both(lows, place) for place in range(5)},
            {8 >> place: _both(highs, place) for place in range(4)},
        ),
    )


def _both(ways: Any, place: int) -> Estimate:
    return Estimate(
        torch.cat([way[place].flow for way in ways]), torch.cat([way[place].logits for way in ways])
    )


def strided(array: Any, name: str, axes: tuple[int, int] = (-2, -1)) -> tuple[np.ndarray, np.ndarray]:
    """An array thinned out as the kit's of this name, and the kit's."""
    official = expected("gim_roma_same")
    key = next(key for key in official if key.partition("_stride")[0] == name)
    stride = int(key.partition("_stride")[2] or 1)
    cut = [slice(None)] * array.ndim
    for axis in axes:
        cut[axis] = slice(None, None, stride)
    return np.asarray(array)[tuple(cut)], official[key]


@needs_kit
def test_photos_are_shown_as_the_official_code_shows_them(matcher):
    for pair, names in (("gim_roma_same", ("img0", "img1")), ("gim_roma_diff", ("img0", "img2"))):
        for index, name in enumerate(names):
            canvas = matcher.place(colour_photo(name))
            official = expected(pair)
            assert largest_gap(canvas.pixels[None, :, ::8, ::8], official[f"padded{index}_stride8"]) < 2e-5
            assert canvas.frame.offset == tuple(official[f"pads{index}"][[0, 2]])


@needs_kit
def test_features_are_the_official_ones(matcher, trace):
    canvas = [matcher.place(colour_photo(name)) for name in ("img0", "img1")]
    with torch.inference_mode():
        image = torch.cat([matcher.flavour.resize(one.pixels, matcher.low) for one in canvas])
        for stage in matcher.network.trunk.stages:
            image = stage(image if image.shape[1] == 3 else matcher.network.trunk.pool(image))
    features = {"pyr8": image, "pyr16": trace.patches, "proj16": trace.coarse, "gp16": trace.posterior}
    for name, found in features.items():
        own, official = strided(found, name)
        assert largest_gap(own, official) < 1e-4 * np.abs(official).max(), name


@needs_kit
def test_anchors_are_the_official_ones(trace):
    own, official = strided(trace.answers[..., -1].reshape(2, 1, 16, 16), "pass1_gm_cert_s16")
    assert largest_gap(own, official) < LOGITS[16]
    own, official = strided(
        trace.answers[..., :-1].argmax(dim=-1).reshape(2, 16, 16), "pass1_gm_cls_argmax_s16"
    )
    assert (own != official).mean() < OUTLIERS


@needs_kit
@pytest.mark.parametrize(
    ("run", "scale"), [(1, 16), (1, 8), (1, 4), (1, 2), (1, 1), (2, 8), (2, 4), (2, 2), (2, 1)]
)
def test_every_scale_is_the_official_one(trace, run, scale):
    estimate = trace.passes[run - 1][scale]
    own, official = strided(estimate.flow, f"pass{run}_flow_s{scale}")
    assert (np.abs(own - official).max(axis=1) > FLOW).mean() < OUTLIERS
    own, official = strided(estimate.logits, f"pass{run}_cert_s{scale}")
    assert (np.abs(own - official) > LOGITS[scale]).mean() < OUTLIERS


@pytest.fixture(scope="module")
def found(matcher: RomaMatcher, trace: Trace) -> dict[str, TwoWay]:
    first, same, diff = (matcher.place(colour_photo(name)) for name in ("img0", "img1", "img2"))
    black = torch.stack([find_black(canvas.pixels, matcher.high) for canvas in (first, same)])
    final, doubt = trace.passes[1][1], trace.passes[0][16].logits
    with torch.inference_mode():
        return {
            "same": pair_up(*settle(final.flow, final.logits, doubt, black))[0],
            "diff": matcher.relate([(first, diff)])[0],
        }


@needs_kit
@pytest.mark.parametrize(("pair", "stride"), [("same", 2), ("diff", 4)])
def test_warps_are_the_official_ones(found, pair, stride):
    official = expected(f"gim_roma_{pair}")
    warp, certainty = (array[::stride, ::stride].numpy() for array in found[pair].matches())
    gaps = np.abs(warp - official[f"dense_warp_stride{stride}"]).max(axis=2)
    assert (gaps > FLOW).mean() < OUTLIERS
    gaps = np.abs(certainty - official[f"dense_certainty_stride{stride}"])
    assert (gaps > CERTAINTY).mean() < OUTLIERS


@needs_kit
def test_chance_falls_as_in_the_official_sampler():
    official = expected("gim_roma_same")
    warp, certainty = (official[f"dense_{name}_stride2"][::2, ::2] for name in ("warp", "certainty"))
    matches, scores = sample_balanced(
        torch.from_numpy(warp.reshape(-1, 4)),
        torch.from_numpy(certainty.flatten()),
        500,
        generator=torch.Generator().manual_seed(1234),
        half_density=True,
    )
    np.testing.assert_array_equal(matches, official["sample_matches"])
    np.testing.assert_array_equal(scores, official["sample_certainty"])


@needs_kit
@pytest.mark.parametrize(("pair", "other"), [("same", "img1"), ("diff", "img2")])
def test_the_official_samples_lie_on_the_warp(found, pair, other):
    official = expected(f"gim_roma_{pair}")["sparse_matches"]
    warp, _ = found[pair].matches()
    side = len(warp)
    columns = ((official + 1) / 2 * side - 0.5).round().astype(int).clip(0, side - 1)
    there = warp[columns[:, 1], columns[:, 0]].numpy()
    back = warp[columns[:, 3], side + columns[:, 2]].numpy()
    gaps = np.minimum(np.abs(there - official).max(axis=1), np.abs(back - official).max(axis=1))
    assert (gaps > FLOW).mean() < 2e-3


@needs_kit
@pytest.mark.parametrize(("pair", "other"), [("same", "img1"), ("diff", "img2")])
def test_keypoints_are_the_official_ones(matcher, pair, other):
    official = expected(f"gim_roma_{pair}")
    canvases = [matcher.place(colour_photo(name)) for name in ("img0", other)]
    given = torch.from_numpy(official["sparse_matches"])
    cut = to_correspondences(given, torch.ones(len(given)), *canvases)
    assert len(cut) == len(official["mconf"])
    for index, points in enumerate((cut.points0, cut.points1)):
        edges = (points.astype(np.float64) + 0.5) * canvases[index].frame.scale
        assert largest_gap(edges, official[f"mkpts{index}"]) < 1e-3


@needs_kit
def test_the_same_chance_draws_the_official_keypoints(matcher, found, monkeypatch):
    official = expected("gim_roma_same")
    canvases = [matcher.place(colour_photo(name)) for name in ("img0", "img1")]
    monkeypatch.setattr(warping, "SEED", 1234)
    with torch.inference_mode():
        own = to_correspondences(*matcher._sample(found["same"]), *canvases)
    assert abs(len(own) - len(official["mconf"])) < 0.01 * len(own)
    rows = np.hstack([official["mkpts0"], official["mkpts1"]]) - 0.5
    both = {tuple(row) for row in rows.round(2).tolist()}
    drawn = {tuple(row) for row in np.hstack([own.points0, own.points1]).round(2).tolist()}
    assert len(both & drawn) > 0.8 * len(both)
    assert abs(np.median(own.scores) - np.median(official["mconf"])) < 1e-2


@needs_kit
def test_the_authors_flavour_is_romatchs_own_pipeline(weights, capfd):
    matcher = load(weights, 112, flavour=ROMA)
    canvases = [matcher.place(colour_photo(name)) for name in ("img0", "img2")]
    low, high = (
        [ROMA.resize(canvas.pixels, size) for canvas in canvases] for size in (matcher.low, matcher.high)
    )
    with torch.inference_mode():
        own, own_certainty = matcher.relate([(canvases[0], canvases[1])])[0].matches()
    del matcher
    filters, chance = list(warnings.filters), torch.get_rng_state()
    network = build_network(*weights)
    assert (warnings.filters, capfd.readouterr()) == (filters, ("", "")), "loading leaves no traces"
    assert torch.equal(torch.get_rng_state(), chance)
    network.w_resized, network.h_resized, network.symmetric = 112, 112, True
    network.upsample_res = high[0].shape[-2:]
    warp, certainty = network.match(*low, im_A_high_res=high[0], im_B_high_res=high[1])
    assert ((own - warp[0]).abs().amax(dim=-1) > FLOW).float().mean() < OUTLIERS
    assert ((own_certainty - certainty[0]).abs() > CERTAINTY).float().mean() < OUTLIERS


@pytest.fixture(scope="module")
def short_matcher(weights: Weights) -> Iterator[RomaMatcher]:
    made = load(weights, 2 * SIDES_MULTIPLE, precision=torch.bfloat16, samples=300)
    yield made
    vars(made).clear()


@needs_kit
def test_short_formats_fit_everywhere(short_matcher):
    there, back = short_matcher.warp([(colour_photo("img0"), colour_photo("img2"))])[0]
    for warp in (there, back):
        assert np.isfinite(warp.places).all()
        assert warp.places.dtype == warp.certainty.dtype == np.float32
        assert 0 <= warp.certainty.min() <= warp.certainty.max() <= 1


@needs_kit
def test_wrong_weights_are_refused(weights):
    own, dinov2 = weights
    short = dict(own)
    short.pop("model.decoder.conv_refiner.1.out_conv.weight")
    with pytest.raises(RuntimeError, match=r"loading state_dict(.|\n)*conv_refiner\.1\.out_conv\.weight"):
        build_network(short, dinov2)
    with pytest.raises(RuntimeError, match=r"loading state_dict(.|\n)*register_tokens"):
        build_network(own, {**dinov2, "register_tokens": dinov2["mask_token"]})


@needs_kit
def test_results_depend_on_the_pair_alone(short_matcher):
    matcher = short_matcher
    photos = [colour_photo(name) for name in ("img0", "img1", "img2")]
    pairs = [(photos[0], photos[1]), (photos[0], photos[2])]
    together = matcher.correspond(pairs)
    for pair, one in zip(reversed(pairs), reversed(together), strict=True):
        alone = matcher.correspond([pair])[0]
        np.testing.assert_array_equal(alone.points0, one.points0)
        np.testing.assert_array_equal(alone.points1, one.points1)
        np.testing.assert_array_equal(alone.scores, one.scores)
        assert len(alone) > 100


class Still:
    """A network for which nothing moves, and which counts what it is shown."""

    def __init__(self, *_weights: Any, **_settings: Any) -> None:
        self.shown: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.zooms: list[tuple[float, float]] = []

    def encode(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        self.shown.append((low, high))
        return high

    def relate(self, own: torch.Tensor, _other: torch.Tensor, zooms: tuple[float, float]) -> Relation:
        self.zooms.append(zooms)
        height, width = own.shape[-2:]
        return Relation(
            Estimate(pixel_centres(own), torch.full((1, 1, height, width), 3.0)), torch.zeros(1, 1, 4, 4)
        )


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(roma, "Roma", Still)

    def make(flavour: Flavour, image_size: int) -> Any:
        return RomaMatcher(
            {}, {}, device=CPU, precision=torch.float32, image_size=image_size, samples=200, flavour=flavour
        )

    return make


def noise(seed: int, width: int, height: int) -> Photo:
    pixels = np.random.default_rng(seed).integers(60, 256, (height, width, 3), dtype=np.uint8)
    return Photo(pixels, (width, height))


@pytest.mark.parametrize("flavour", [GIM_ROMA, ROMA], ids=["gim", "authors"])
def test_a_photo_that_does_not_move_is_found_where_it_is(still, flavour):
    matcher = still(flavour, 112)
    first, second = noise(0, 121, 83), noise(1, 121, 83)
    points = np.random.default_rng(0).uniform((6, 6), (110, 72), (50, 2))
    for warp in matcher.warp([(first, second)])[0]:
        places, certainty = warp.carry(points)
        assert largest_gap(places, points) < 1e-2
        np.testing.assert_allclose(certainty, 1 / (1 + np.exp(-3.0)), atol=1e-4)
    found = matcher.correspond([(first, second)])[0]
    assert len(found) > 150
    assert largest_gap(found.points0, found.points1) < 1e-2


def test_photos_are_encoded_once_while_they_stay(still):
    matcher = still(GIM_ROMA, 112)
    photos = [noise(seed, 64, 48) for seed in range(4)]
    matcher.warp([(photos[0], photos[1]), (photos[0], photos[2]), (photos[0], photos[3])])
    assert len(matcher.network.shown) == 4
    matcher.warp([(photos[1], photos[2])])
    assert len(matcher.network.shown) == 6


@pytest.mark.parametrize(
    ("flavour", "size", "low", "high", "zooms"),
    [
        (GIM_ROMA, 672, 672, 1344, (1, 2)),
        (GIM_ROMA, 300, 280, 560, (1, 2)),
        (GIM_ROMA, 5, 56, 112, (1, 2)),
        (ROMA, 560, 560, 864, (1, 864 / 560)),
        (ROMA, 224, 224, 344, (0.4, 344 / 560)),
    ],
)
def test_sides_fit_both_trunks(still, flavour, size, low, high, zooms):
    matcher = still(flavour, size)
    matcher.warp([(noise(0, 50, 40), noise(1, 50, 40))])
    shown_low, shown_high = matcher.network.shown[0]
    assert shown_low.shape == (1, 3, low, low)
    assert shown_high.shape == (1, 3, high, high)
    assert matcher.network.zooms[0] == pytest.approx(zooms)


def test_only_gims_flavour_takes_black_for_padding(still):
    dark = noise(0, 112, 112)
    dark.pixels[:, :40] = 5
    for flavour, least in ((GIM_ROMA, 0.0), (ROMA, 0.9)):
        there, back = still(flavour, 112).warp([(dark, noise(1, 112, 112))])[0]
        assert there.certainty[:, : there.certainty.shape[1] // 4].max() == pytest.approx(least, abs=0.06)
        assert there.certainty[20:-20, -60:].min() > 0.9
        assert back.certainty[20:-20, 20:-20].min() > 0.9


def test_the_authors_flavour_takes_the_mean_colour_out():
    grey = torch.tensor(ROMA.mean)[:, None, None].expand(3, 30, 40)
    assert ROMA.resize(grey, (56, 56)).abs().max() < 1e-5
    torch.testing.assert_close(GIM_ROMA.resize(grey, (30, 40))[0], grey)


def test_a_missing_package_is_told_with_its_remedy(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "romatch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "romatch", None)
    with pytest.raises(SettingsError, match=r"romatch") as caught:
        RomaMatcher({}, {}, device=CPU, precision=torch.float32)
    assert "pip install 'gim_sfm[roma]'" in caught.value.remedy


def test_anchors_are_those_of_the_published_formula():
    logits = torch.randn(50, 64 * 64, generator=torch.Generator().manual_seed(0)) * 3
    logits[0, 0] = logits[1, 4095] = logits[2, 63] = 40  # corners: neighbours are clamped or wrap
    shares = logits.softmax(dim=1)
    for row, found in zip(shares, locate_anchors(logits), strict=True):
        best = int(row.argmax())
        index = [min(max(best + step, 0), 4095) for step in (-1, 0, 1, -64, 64)]
        places = torch.tensor([[(2 * (i % 64) + 1) / 64 - 1, (2 * (i // 64) + 1) / 64 - 1] for i in index])
        torch.testing.assert_close(found, (row[index] @ places) / row[index].sum(), atol=1e-5, rtol=0)


def test_romatch_agrees_on_anchors():
    published = pytest.importorskip("romatch.utils.utils", reason="the package romatch is not installed")
    logits = torch.randn(1, 4096, 3, 4, generator=torch.Generator().manual_seed(1)) * 4
    expected_places = published.cls_to_flow_refine(logits).reshape(-1, 2)
    torch.testing.assert_close(locate_anchors(logits[0].flatten(1).T), expected_places, atol=1e-5, rtol=0)


def test_a_memory_forgets_the_longest_unused_and_never_mistakes_equals():
    made: list[list[int]] = []

    def double(source: list[int]) -> list[int]:
        made.append(source)
        return source * 2

    remember = Memory(double, 2)
    a, b, c, equal_to_a = [1], [2], [3], [1]
    assert remember(a) == [1, 1]
    remember(b)
    remember(a)
    remember(c)  # b goes
    remember(a)
    assert len(made) == 3
    remember(b)
    remember(equal_to_a)
    assert len(made) == 5


def test_importing_the_adapter_imports_no_romatch():
    assert import_module("gim_sfm.matchers.roma").__doc__
    source = import_module("gim_sfm.matchers.networks.roma")
    assert not hasattr(source, "romatch")
