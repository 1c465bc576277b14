from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from parity_kit import colour_photo, expected, largest_gap, made_weights, needs_kit
from torch.nn import functional

from gim_sfm.matchers.dkm import DKM, GIM_DKM, DkmMatcher
from gim_sfm.matchers.networks.correlation import correlate, read_between
from gim_sfm.matchers.networks.dkm import BASIS, SHARED_ABOVE, Dkm, GaussianProcess, load_dkm
from gim_sfm.matchers.warping import (
    Canvas,
    Field,
    TwoWay,
    find_black,
    put_on_canvas,
    sample_balanced,
    settle,
    to_correspondences,
    to_warp,
)
from gim_sfm.types import Photo

CPU = torch.device("cpu")
SINGLE = torch.float32

KIT_SIZE = replace(GIM_DKM, low=(192, 256), high=(288, 384))
QUIRK_SIZE = replace(GIM_DKM, low=(624, 832), high=(288, 384))
TINY = replace(GIM_DKM, low=(64, 96), high=(96, 128))

FLOW, DENSE_CERTAINTY, GP = 6e-5, 3e-3, 4e-4
LOGITS = {"32": 6e-4, "16": 6e-4, "8": 6e-4, "4": 2e-3, "2": 6e-3, "1": 8e-3}
STRAYS = 0.001
"""Tolerances of the kit, and the share of dense pixels that may lie outside them."""


# The official network, with the weights and images of the kit


def gim_dkm(flavour, *, share_inverse=False) -> DkmMatcher:
    return DkmMatcher(
        made_weights("gim_dkm"), device=CPU, precision=SINGLE, flavour=flavour, share_inverse=share_inverse
    )


def look(matcher, first: str, second: str) -> SimpleNamespace:
    """What our pipeline makes of two images of the kit, and what its modules gave on the way."""
    seen = {}
    network = matcher.network
    watched = {"pyr": network.encoder, "estimates": network}
    watched |= {f"proj{stride}": module for stride, module in network.decoder.proj.items()}
    watched |= {f"gp{stride}": module for stride, module in network.decoder.gps.items()}

    def keep_first(name):
        def hook(module, inputs, output) -> None:
            seen.setdefault(name, output)

        return hook

    hooks = [module.register_forward_hook(keep_first(name)) for name, module in watched.items()]
    canvases = matcher.place(colour_photo(first)), matcher.place(colour_photo(second))
    with torch.inference_mode():
        (both,) = matcher.relate([canvases])
    for hook in hooks:
        hook.remove()
    return SimpleNamespace(canvases=canvases, both=both, seen=seen)


@pytest.fixture(scope="module")
def kit_matcher():
    return gim_dkm(KIT_SIZE)


@pytest.fixture(scope="module")
def same(kit_matcher):
    return look(kit_matcher, "img0", "img1")


@pytest.fixture(scope="module")
def diff(kit_matcher):
    return look(kit_matcher, "img0", "img2")


@pytest.fixture(scope="module")
def fixed():
    return look(gim_dkm(QUIRK_SIZE), "img0", "img2")


@pytest.fixture(scope="module")
def quirk():
    return look(gim_dkm(QUIRK_SIZE, share_inverse=True), "img0", "img2")


def thin(array, name: str) -> np.ndarray:
    """Every so many of the last two axes, as the name of the kit's array says."""
    step = int(name.rpartition("stride")[2]) if "stride" in name else 1
    return array[..., ::step, ::step].float().numpy()


def strays(own, official, tolerance: float) -> float:
    return float((np.abs(own - official) > tolerance).mean())


def arrays(*beginnings: str) -> list[str]:
    """Names of the kit's arrays; none where there is no kit."""
    try:
        return [name for name in expected("gim_dkm_same") if name.startswith(beginnings)]
    except FileNotFoundError:
        return []


@needs_kit
@pytest.mark.parametrize("name", arrays("pyr", "proj"))
def test_features_are_the_official_ones(same, name):
    official = expected("gim_dkm_same")[name]
    key = name.partition("_")[0]
    own = same.seen["pyr"][key[3:]] if key.startswith("pyr") else same.seen[key]
    assert largest_gap(thin(own, name), official) < 1e-4 * np.abs(official).max()


@needs_kit
@pytest.mark.parametrize("name", arrays("gp"))
def test_gaussian_processes_predict_the_official_embeddings(same, name):
    own = thin(same.seen[name.partition("_")[0]], name)
    assert largest_gap(own, expected("gim_dkm_same")[name]) < GP


beyond_rounding = pytest.mark.xfail(
    reason="The kit measured pass 1 only. Here pass 2 inherits the rounding of pass 1's finest logits: our "
    "network in float64 is already 5.7e-4 off the official float32, of the 6e-4 that the table allows."
)


@needs_kit
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=beyond_rounding if name == "pass2_cert_s8" else ()) for name in arrays("pass")],
)
def test_flows_and_logits_are_the_official_ones_at_every_scale(same, name):
    passed, kind, scale = name.split("_")[:3]
    stride = scale.removeprefix("s")
    estimate = same.seen["estimates"][int(passed[-1]) - 1][stride]
    own = thin(estimate.flow if kind == "flow" else estimate.logits, name)
    tolerance = FLOW if kind == "flow" else LOGITS[stride]
    assert largest_gap(own, expected("gim_dkm_same")[name]) < tolerance


@needs_kit
@pytest.mark.parametrize(("pair", "step"), [("same", 2), ("diff", 4)])
def test_the_dense_result_is_the_official_one(request, pair, step):
    matches, certainty = request.getfixturevalue(pair).both.matches()
    official = expected(f"gim_dkm_{pair}")
    assert strays(matches[::step, ::step].numpy(), official[f"dense_warp_stride{step}"], FLOW) <= STRAYS
    own = certainty[::step, ::step].numpy()
    assert strays(own, official[f"dense_certainty_stride{step}"], DENSE_CERTAINTY) <= STRAYS


@needs_kit
@pytest.mark.parametrize(("mode", "prefix"), [("fixed", "fixed_"), ("quirk", "")])
def test_the_shared_inverse_can_be_mended_and_had_back(request, mode, prefix):
    result, official = request.getfixturevalue(mode), expected("gim_dkm_quirk")
    # A->B, which the official mistake leaves alone, and what is mended; B->A with the borrowed inverse
    tolerances = [(7e-3, 4e-4, 2e-2, STRAYS), (7e-3, 4e-4, 2e-2, STRAYS)]
    if mode == "quirk":
        tolerances[1] = (7e-2, 2e-2, 1e-2, 0.005)
    features = result.seen["proj16"][:, ::8, ::2, ::2].numpy()
    embedding = result.seen["gp16"][:, ::4, ::2, ::2].numpy()
    matches, certainty = (dense[::4, ::4].numpy() for dense in result.both.matches())
    half = certainty.shape[1] // 2
    scale = np.abs(official["gp16_x_channel8_stride2"]).max()
    assert largest_gap(features, official["gp16_x_channel8_stride2"]) < 1e-4 * scale
    for way, (mean, flow, certain, allowed) in enumerate(tolerances):
        columns = slice(way * half, (way + 1) * half)
        gp16 = official[f"{prefix}gp16_out_channel4_stride2"][way]
        warp = official[f"{prefix}dense_warp_stride4"][:, columns]
        certainties = official[f"{prefix}dense_certainty_stride4"][:, columns]
        assert largest_gap(embedding[way], gp16) < mean
        assert strays(matches[:, columns], warp, flow) <= STRAYS
        assert strays(certainty[:, columns], certainties, certain) <= allowed


@needs_kit
def test_the_mistake_moves_the_way_back_only(fixed, quirk):
    gap = (fixed.both.matches()[0] - quirk.both.matches()[0]).abs()
    width = gap.shape[1] // 2
    assert gap[:, :width].max() < 1e-5
    assert gap[:, width:].mean() > 0.05


@needs_kit
def test_the_sampler_alone_draws_the_official_samples():
    official = expected("gim_dkm_same")
    warp = torch.from_numpy(official["dense_warp_stride2"][::2, ::2].reshape(-1, 4))
    certainty = torch.from_numpy(official["dense_certainty_stride2"][::2, ::2].reshape(-1))
    generator = torch.Generator().manual_seed(1234)
    matches, certainties = sample_balanced(warp, certainty, 500, generator=generator)
    np.testing.assert_array_equal(matches.numpy(), official["sample_matches"])
    np.testing.assert_array_equal(certainties.numpy(), official["sample_certainty"])


def official_in_file_pixels(points, canvas: Canvas) -> np.ndarray:
    """Keypoints of the official demo: edges at 0, in the photo without padding but cut to multiples of 8."""
    return points / np.array(canvas.frame.scale) - 0.5


@needs_kit
@pytest.mark.parametrize("pair", ["same", "diff"])
def test_official_keypoints_lie_on_our_warps(request, pair):
    result, official = request.getfixturevalue(pair), expected(f"gim_dkm_{pair}")
    first, second = result.canvases
    warps = to_warp(result.both.there, first, second), to_warp(result.both.back, second, first)
    points0 = official_in_file_pixels(official["mkpts0"], first)
    points1 = official_in_file_pixels(official["mkpts1"], second)
    there, certainty0 = warps[0].carry(points0)
    back, certainty1 = warps[1].carry(points1)
    # A sample is a pixel of one grid and its place: one of the two ways must tell it to rounding.
    tolerance = FLOW / 2 * max(*first.size, *second.size)
    right = np.abs(there - points1).max(axis=1) < tolerance
    right |= np.abs(back - points0).max(axis=1) < tolerance
    assert right.mean() > 0.998
    told = np.minimum(np.abs(certainty0 - official["mconf"]), np.abs(certainty1 - official["mconf"]))
    assert (told < DENSE_CERTAINTY).mean() > 0.998


# A tiny one, with weights of chance


@pytest.fixture(scope="module")
def chance_weights():
    torch.manual_seed(0)
    return Dkm().state_dict()


@pytest.fixture(scope="module")
def tiny(chance_weights):
    return DkmMatcher(chance_weights, device=CPU, precision=SINGLE, samples=200, flavour=TINY)


def texture(seed: int, width: int, height: int) -> Photo:
    drawn = np.random.default_rng(seed).integers(16, 256, (height, width, 3), dtype=np.uint8)
    return Photo(drawn, (width, height))


def test_correlation_is_that_of_features_read_all_around():
    torch.manual_seed(0)
    x, y = torch.randn(2, 2, 5, 6, 9)
    flow = torch.rand(2, 2, 6, 9) * 3 - 1.5
    flow[0, :, 0, 0] = torch.tensor([1e6, -1e6])
    flow[1, :, 0, 0] = torch.tensor([1.0, -1.0])
    for radius in (1, 2, 3):
        steps_y = torch.linspace(-2 * radius / 6, 2 * radius / 6, 2 * radius + 1)
        steps_x = torch.linspace(-2 * radius / 9, 2 * radius / 9, 2 * radius + 1)
        window = torch.stack(torch.meshgrid(steps_x, steps_y, indexing="xy"), dim=-1).reshape(-1, 2)
        products = [(x * read_between(y, flow + step[:, None, None])).sum(dim=1) for step in window]
        naive = torch.stack(products, dim=1) / 5**0.5
        torch.testing.assert_close(correlate(x, y, flow, radius), naive, atol=2e-5, rtol=1e-5)


def closed_formula(process, x, y):
    """Posterior mean of one pair in double precision."""
    height, width = y.shape[1:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([(columns + 0.5) / width * 2 - 1, (rows + 0.5) / height * 2 - 1], dim=-1).double()
    weight, bias = process.pos_conv.weight.double()[:, :, 0, 0], process.pos_conv.bias.double()
    basis = torch.cos(8 * torch.pi * (grid.reshape(-1, 2) @ weight.T + bias))
    unit0, unit1 = (functional.normalize(maps.double().flatten(1).T, dim=1) for maps in (x, y))
    inner = torch.exp((unit1 @ unit1.T - 1) / 0.2) + 0.1 * torch.eye(len(unit1), dtype=torch.float64)
    across = torch.exp((unit0 @ unit1.T - 1) / 0.2)
    return (across @ torch.linalg.inv(inner) @ basis).T.reshape(BASIS, height, width)


@pytest.mark.parametrize("share_inverse", [False, True])
@torch.inference_mode()
def test_a_gaussian_process_is_its_closed_formula_up_to_2000_cells(share_inverse):
    torch.manual_seed(0)
    process = GaussianProcess(share_inverse=share_inverse)
    x, y = torch.randn(2, 2, 12, 9, 11)
    assert SHARED_ABOVE == 2000
    for index, mean in enumerate(process(x, y)):
        assert largest_gap(mean, closed_formula(process, x[index], y[index])) < 1e-3


@torch.inference_mode()
def test_beyond_2000_cells_the_switch_lends_the_inverse_of_the_way_there():
    torch.manual_seed(0)
    right, wrong = (GaussianProcess(share_inverse=share) for share in (False, True))
    wrong.load_state_dict(right.state_dict())
    x = torch.randn(4, 6, 41, 49)
    y = x.roll(2, dims=0)
    mended, lent = right(x, y), wrong(x, y)
    torch.testing.assert_close(mended[:2], lent[:2])
    for pair in (2, 3):
        assert (mended[pair] - lent[pair]).abs().mean() > 0.01
        alone = wrong(x[[pair - 2, pair]], y[[pair - 2, pair]])
        torch.testing.assert_close(alone[1], lent[pair])


def test_pairs_shown_together_give_what_each_gives_alone(tiny):
    pairs = [(texture(0, 100, 80), texture(1, 90, 70)), (texture(2, 64, 96), texture(3, 120, 60))]
    one_by_one = [tiny.warp([pair])[0] for pair in pairs]
    for own, other in zip(one_by_one, tiny.warp(pairs), strict=True):
        for way, other_way in zip(own, other, strict=True):
            np.testing.assert_allclose(way.places, other_way.places, atol=0.01)
            np.testing.assert_allclose(way.certainty, other_way.certainty, atol=1e-3)
            assert way.origin == other_way.origin
            assert way.step == other_way.step
    assert np.abs(one_by_one[0][0].places - one_by_one[1][0].places).max() > 0.1


def test_a_pair_gives_the_same_in_any_order_and_company(tiny):
    pair, other = (texture(0, 100, 80), texture(1, 90, 70)), (texture(2, 64, 96), texture(3, 120, 60))
    (first,) = tiny.correspond([pair])
    torch.manual_seed(77)
    _, again = tiny.correspond([other, pair])
    assert 0 < len(first) <= 200
    np.testing.assert_array_equal(first.points0, again.points0)
    np.testing.assert_array_equal(first.points1, again.points1)
    np.testing.assert_array_equal(first.scores, again.scores)


@pytest.mark.parametrize("sizes", [((3000, 9), (7, 2000)), ((5, 3), (1, 1)), ((2000, 1500), (40, 30))])
def test_photos_of_any_shape_and_size_can_be_matched(tiny, chance_weights, sizes):
    stretching = DkmMatcher(
        chance_weights,
        device=CPU,
        precision=SINGLE,
        samples=50,
        flavour=replace(DKM, low=(64, 96), high=(96, 128)),
    )
    pair = tuple(texture(index, *size) for index, size in enumerate(sizes))
    for matcher in (tiny, stretching):
        (there, back), (found,) = matcher.warp([pair])[0], matcher.correspond([pair])
        for warp, size in ((there, sizes[1]), (back, sizes[0])):
            sure = warp.certainty > 0
            assert np.isfinite(warp.places).all()
            assert (warp.places[sure] >= -0.5).all()
            assert (warp.places[sure] <= np.array(size) - 0.49).all()
        for points, size in ((found.points0, sizes[0]), (found.points1, sizes[1])):
            assert ((points > -0.5) & (points < np.array(size) - 0.5)).all()


def test_weights_must_fit_whatever_prefix_they_bear(chance_weights):
    classifier = {"encoder.net.fc.weight": torch.ones(1), "encoder.net.fc.bias": torch.ones(1)}
    prefixed = {f"model.{name}": value for name, value in chance_weights.items()}
    load_dkm(prefixed | classifier, device=CPU, precision=SINGLE)
    lost = "decoder.conv_refiner.8.out_conv.bias"
    with pytest.raises(RuntimeError, match=rf"loading state_dict(.|\n)*{lost}"):
        load_dkm(
            {name: value for name, value in chance_weights.items() if name != lost},
            device=CPU,
            precision=SINGLE,
        )
    with pytest.raises(RuntimeError, match=r"loading state_dict(.|\n)*decoder\.surplus"):
        load_dkm(chance_weights | {"decoder.surplus": torch.ones(1)}, device=CPU, precision=SINGLE)


@needs_kit
def test_the_names_are_those_of_the_official_file(chance_weights):
    assert {f"model.{name}" for name in chance_weights} == set(made_weights("gim_dkm"))


def test_short_formats_touch_the_refiners_only(chance_weights):
    low, high = torch.rand(2, 3, 64, 96), torch.rand(2, 3, 96, 128)
    with torch.inference_mode():
        exact, short = (
            load_dkm(chance_weights, device=CPU, precision=precision)(low, high)
            for precision in (SINGLE, torch.bfloat16)
        )
    torch.testing.assert_close(exact[0]["32"].flow, short[0]["32"].flow, atol=1e-6, rtol=0)
    for stride in ("16", "8", "4", "2", "1"):
        assert short[0][stride].flow.dtype == SINGLE
        assert (exact[0][stride].flow - short[0][stride].flow).abs().max() < 0.01
    assert (exact[1]["1"].flow - short[1]["1"].flow).abs().max() < 0.01
    assert (exact[1]["1"].logits - short[1]["1"].logits).abs().max() < 0.1


def test_another_image_size_scales_both_resolutions():
    assert GIM_DKM.scale(None) == GIM_DKM.scale(896) == GIM_DKM
    assert DKM.scale(720) == DKM
    small = GIM_DKM.scale(448)
    assert (small.low, small.high) == ((320, 448), (576, 768))
    assert GIM_DKM.scale(10).low == (32, 32)


# What dense matchers share


def test_photos_are_padded_or_left_to_be_stretched_and_shrunk_only_where_large():
    huge, small = texture(0, 3001, 2000), texture(1, 301, 223)
    padded = put_on_canvas(huge, (1152, 1536), aspect=4 / 3)
    assert padded.frame.content == (1536, 1024)
    assert padded.size == (1536, 1152)
    assert put_on_canvas(small, (1152, 1536), aspect=4 / 3).frame.content == (296, 216)
    bare = put_on_canvas(small, (864, 1152), aspect=None, multiple=1)
    assert bare.size == bare.frame.content == (301, 223)
    tall = put_on_canvas(texture(2, 1500, 2000), (864, 1152), aspect=None, multiple=1)
    assert tall.size == (1152, 1536)


def test_black_is_where_no_channel_reaches_a_thirty_second():
    pixels = torch.zeros(3, 4, 6)
    pixels[1, 0, :3] = 1 / 32
    pixels[:, 0, 3:] = 0.031
    assert find_black(pixels, (4, 6))[0].tolist() == [False] * 3 + [True] * 3
    assert find_black(pixels, (2, 2)).tolist() == [[False, True], [True, True]]


def test_places_beyond_the_canvas_are_clamped_and_not_certain():
    flow = torch.tensor([[0.5, 1.2, 0.0, -1.0], [0.0, 0.0, -1.001, 1.0]]).reshape(1, 2, 1, 4)
    logits = torch.zeros(1, 1, 1, 4)
    places, certainty = settle(flow, logits, torch.full((1, 1, 1, 1), 3.0), None)
    assert certainty[0, 0].tolist() == [0.5, 0, 0, 0.5]
    assert places[0, 0].tolist() == [[0.5, 0], [1, 0], [0, -1], [-1, 1]]
    black = torch.tensor([[[True, False, False, False]]])
    _, doubted = settle(flow, logits, torch.full((1, 1, 1, 1), -2.0), black)
    torch.testing.assert_close(doubted[0, 0], torch.tensor([0, 0, 0, torch.sigmoid(torch.tensor(1.0))]))


@pytest.mark.parametrize("aspect", [4 / 3, 1.0, None])
def test_warps_lead_where_the_network_says(aspect):
    first = put_on_canvas(texture(0, 101, 83), (96, 128), aspect=aspect)
    second = put_on_canvas(texture(1, 61, 150), (96, 128), aspect=aspect)
    y, x = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    grid = torch.stack([(x + 0.5) / 32 - 1, (y + 0.5) / 24 - 1], dim=-1).float()
    told = 0.8 * grid + torch.tensor([0.05, -0.1])
    warp = to_warp(Field(told, torch.full((48, 64), 0.7)), first, second)
    points = np.random.default_rng(0).uniform([3, 3], [97, 79], (50, 2))
    places, certainty = warp.carry(points)

    def shown_at(points, canvas, size):
        """Normalised places on a canvas, from the edges of file pixels."""
        share = (points + 0.5) / size
        offset, content = np.array(canvas.frame.offset), np.array(canvas.frame.content)
        return (offset + share * content) / np.array(canvas.size) * 2 - 1

    goal = shown_at(points, first, (101, 83)) * 0.8 + np.array([0.05, -0.1])
    on_photo = (np.abs(shown_at(places, second, (61, 150)) - goal) < 1e-4).all(axis=1)
    assert on_photo.all()
    inside = ((places > 3) & (places < np.array([57, 146]))).all(axis=1)
    outside = ((places < -4) | (places > np.array([65, 154]))).any(axis=1)
    np.testing.assert_allclose(certainty[inside], 0.7, atol=1e-6)
    assert (certainty[outside] == 0).all()
    assert inside.any()


def two_way(certainty: torch.Tensor) -> TwoWay:
    y, x = torch.meshgrid(torch.arange(24), torch.arange(32), indexing="ij")
    grid = torch.stack([(x + 0.5) / 16 - 1, (y + 0.5) / 12 - 1], dim=-1).float()
    return TwoWay(Field(grid, certainty), Field(grid, certainty))


def test_correspondences_keep_off_the_borders_and_what_nothing_speaks_for():
    canvas = put_on_canvas(texture(0, 64, 40), (48, 64), aspect=4 / 3)
    matches, certainty = two_way(torch.full((24, 32), 0.7)).matches()
    certainty[:, :5] = 0
    found = to_correspondences(matches.reshape(-1, 4), certainty.flatten(), canvas, canvas)
    assert 0 < len(found) < certainty.numel()
    np.testing.assert_allclose(found.points0, found.points1, atol=1e-5)
    assert (found.scores > 0).all()
    assert (found.points0 > -0.5).all()
    assert (found.points0 <= np.array([62.5, 38.5])).all()


def test_samples_are_distinct_certain_ones():
    torch.manual_seed(0)
    certainty = torch.rand(24, 32) * 0.5 + 0.2
    certainty[:, 16:] = 0
    matches, certainties = (dense.flatten(0, 1) for dense in two_way(certainty).matches())
    chosen, told = sample_balanced(matches, certainties, 60, generator=torch.Generator().manual_seed(1))
    assert chosen.shape == (60, 4)
    assert len(torch.unique(chosen, dim=0)) > 30  # a pixel may be chosen once each way
    assert (told >= 0.2).all()
    assert len(sample_balanced(matches, certainties * 0, 60)[0]) == 0
    assert len(sample_balanced(matches[:7], certainties[:7], 60)[0]) == 7
    assert sample_balanced(matches, certainties, 60, half_density=True)[0].dtype == torch.float32


def test_results_that_are_no_numbers_are_not_trusted():
    flow, logits = torch.zeros(1, 2, 2, 2), torch.full((1, 1, 2, 2), 3.0)
    flow[0, 0, 0, 0], logits[0, 0, 1, 1] = torch.nan, torch.nan
    places, certainty = settle(flow, logits, torch.ones(1, 1, 1, 1), None)
    assert places.isfinite().all()
    assert (certainty[0] > 0).tolist() == [[False, True], [True, False]]
