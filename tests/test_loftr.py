from typing import Any

import cv2
import numpy as np
import pytest
import torch
from kornia.feature import LoFTR
from kornia.feature.loftr.loftr import default_cfg
from parity_kit import colour_photo, expected, largest_gap, made_weights, needs_kit
from torch.nn import functional

from gim_sfm.errors import InputError, SettingsError
from gim_sfm.matchers.frame import fit
from gim_sfm.matchers.loftr import (
    GIM_LOFTR,
    LOFTR,
    PHOTOS_REMEMBERED,
    CellMatches,
    Flavour,
    LoftrMatcher,
    choose,
    compare,
    look_in_window,
    match_cells,
    read_windows,
    window_grid,
)
from gim_sfm.types import Correspondences, Photo

CPU = torch.device("cpu")
SHARPNESS = 12.0
PAIRS = {"same": ("img0", "img1"), "diff": ("img0", "img2")}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def gim() -> LoftrMatcher:
    return LoftrMatcher(made_weights("gim_loftr"), device=CPU, precision=torch.float32, image_size=1024)


def relative_gap(own: Any, official: Any) -> float:
    return largest_gap(own, official) / float(np.abs(official).max())


# ---------------------------------------------------------------------------------------- parity
# Left out: masked_*. Photos are fitted here without padding, so there is nothing to mask.


def describe_pair(matcher: LoftrMatcher, names: tuple[str, str]) -> tuple[Any, Any]:
    """Both photos of a pair from their files through the frame and the backbone."""
    inputs = [fit(colour_photo(name), matcher.image_size, 8)[0] for name in names]
    with torch.inference_mode():
        described = [matcher.describe(torch.from_numpy(matcher._input(pixels))[None]) for pixels in inputs]
    return described[0], described[1]


@needs_kit
@pytest.mark.parametrize("pair", ["same", "diff"])
def test_what_the_backbone_gives_is_official(gim, pair):
    official = expected(f"gim_loftr_{pair}")
    for side, described in enumerate(describe_pair(gim, PAIRS[pair])):
        if pair == "same":  # where the official code runs both photos as one batch
            coarse, fine = (official[key][side] for key in ("feat_c_stride2", "feat_f_stride8"))
        else:
            coarse, fine = (official[key][0] for key in (f"feat_c{side}_stride2", f"feat_f{side}_stride8"))
        bare = described.coarse - gim.network.pos_encoding(torch.zeros_like(described.coarse))
        assert relative_gap(bare[0, :, ::2, ::2], coarse) < 1e-4
        assert relative_gap(described.fine[0, :, ::8, ::8], fine) < 1e-4
        if side == 0:
            assert relative_gap(described.coarse[..., ::4, ::4], official["feat_c0_pos_stride4"]) < 1e-4


@needs_kit
@pytest.mark.parametrize("pair", ["same", "diff"])
def test_coarse_matches_are_official(gim, pair):
    official = expected(f"gim_loftr_{pair}")
    side0, side1 = describe_pair(gim, PAIRS[pair])
    with torch.inference_mode():
        tokens0, tokens1 = gim.coarse(side0.tokens, side1.tokens)
    assert largest_gap(tokens0[:, ::4], official["feat_c0_out_every4"]) < 3e-4
    assert largest_gap(tokens1[:, ::4], official["feat_c1_out_every4"]) < 3e-4

    similar = compare(tokens0[0], tokens1[0])
    similarity = tokens0[0] @ tokens1[0].T / 256 / 0.1
    confidence = torch.exp(2 * similarity - similar.rows[:, None] - similar.columns)
    assert largest_gap(confidence[::4, ::4], official["conf_matrix_stride4"][0]) < 1e-4
    largest, where = confidence.max(dim=1)
    assert largest_gap(largest, official["conf_row_max"][0]) < 1e-4
    moved = where.numpy() != official["conf_row_argmax"][0]
    assert (official["conf_row_max"][0][moved] < 1e-3).all(), "only where all are equally unlikely"

    chosen, confidences = choose(similar, side0.shape, side1.shape)
    assert chosen.tolist() == [official["i_ids"].tolist(), official["j_ids"].tolist()]
    assert largest_gap(confidences, official["mconf"]) < 1e-4


@needs_kit
@pytest.mark.parametrize("pair", ["same", "diff"])
def test_the_refinement_is_official(gim, pair):
    official = expected(f"gim_loftr_{pair}")
    side0, side1 = describe_pair(gim, PAIRS[pair])
    cells0, cells1 = (torch.from_numpy(official[key]) for key in ("i_ids", "j_ids"))
    first = torch.zeros_like(cells0)
    with torch.inference_mode():
        windows0, windows1 = read_windows(side0.fine, first, cells0), read_windows(side1.fine, first, cells1)
        assert relative_gap(windows0[:16], official["fine_in0_first16"]) < 1e-4
        assert relative_gap(windows1[:16], official["fine_in1_first16"]) < 1e-4
        refined0, refined1 = gim.fine(windows0, windows1)
    assert relative_gap(refined0[:16], official["fine_out0_first16"]) < 1e-4
    assert relative_gap(refined1[:16], official["fine_out1_first16"]) < 1e-4
    share, grid = look_in_window(refined0, refined1), window_grid(CPU)
    mean = share @ grid
    spread = (share @ grid.square() - mean.square()).clamp(min=1e-10).sqrt().sum(dim=1, keepdim=True)
    assert largest_gap(torch.cat([mean, spread], dim=1), official["expec_f"]) < 4e-5


@needs_kit
@pytest.mark.parametrize("pair", ["same", "diff"])
def test_matches_of_files_are_official(gim, pair):
    official = expected(f"gim_loftr_{pair}")
    photos = tuple(colour_photo(name) for name in PAIRS[pair])
    found = gim.correspond([photos])[0]
    assert len(found) == len(official["mconf"]) == {"same": 787, "diff": 207}[pair]
    frames = [fit(photo, 1024, 8)[1] for photo in photos]
    # The official code tells pixels of the network's input, ours of the file.
    assert largest_gap(frames[0].to_network(found.points0), official["mkpts0"]) < 2e-4
    assert largest_gap(frames[1].to_network(found.points1), official["mkpts1"]) < 2e-4
    assert largest_gap(found.scores, official["mconf"]) < 1e-4


@needs_kit
def test_a_short_format_finds_nearly_the_same(gim):
    short = LoftrMatcher(made_weights("gim_loftr"), device=CPU, precision=torch.bfloat16, image_size=1024)
    pair = (colour_photo("img0"), colour_photo("img1"))
    exact, rough = by_cell(gim.correspond([pair])[0]), by_cell(short.correspond([pair])[0])
    both = exact.keys() & rough.keys()
    assert len(both) > 0.95 * max(len(exact), len(rough))
    assert np.median([np.abs(np.subtract(exact[cell], rough[cell])).max() for cell in both]) < 0.05


@needs_kit
def test_every_parameter_is_used_and_named_when_missing():
    weights = made_weights("gim_loftr")
    assert len(weights) == 375

    def load(state: dict[str, torch.Tensor]) -> LoftrMatcher:
        return LoftrMatcher(state, device=CPU, precision=torch.float32, image_size=640)

    bare = {key.removeprefix("model."): value for key, value in weights.items()}
    for prefix in ("", "matcher."):
        load({prefix + key: value for key, value in bare.items()})
    with pytest.raises(RuntimeError, match=r"backbone\.encode\.conv1\.weight"):
        load({key: value for key, value in weights.items() if "encode.conv1" not in key})
    with pytest.raises(RuntimeError, match=r"fine_preprocess\.down_proj\.weight"):
        load({**weights, "model.fine_preprocess.down_proj.weight": torch.zeros(128, 256)})


# ------------------------------------------------------------------------------------- own tests


def shaken(network: Any, seed: int) -> dict[str, torch.Tensor]:
    """Weights of no meaning, sharp enough for matches, running statistics included."""
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for key, value in state.items():
        if key.endswith("running_var"):
            state[key] = 0.5 + torch.rand(value.shape, generator=generator)
        elif value.is_floating_point():
            spread = 0.1 if value.ndim < 2 else 1.4 * value[0].numel() ** -0.5
            centre = 0.7 if value.ndim < 2 and key.endswith("weight") else 0.0
            state[key] = centre + spread * torch.randn(value.shape, generator=generator)
            if "norm2.weight" in key:
                state[key] *= 0.3
    sharpen(network, state)
    return state


def sharpen(network: Any, state: dict[str, torch.Tensor]) -> None:
    """Take what all cells have in common out of the coarse cells, and enlarge the rest."""
    network.load_state_dict(dict(state))
    seen: list[torch.Tensor] = []
    hook = network.backbone.layer3_outconv.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    channels = 1 if "backbone.conv1.weight" in state else 3
    image = torch.from_numpy(texture((160, 128), seed=9)[..., :channels]).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        network.eval().backbone(image)
    hook.remove()
    common = functional.normalize(seen[0].mean(dim=(0, 2, 3)), dim=0)
    weight = state["backbone.layer3_outconv.weight"][:, :, 0, 0]
    weight = weight - (weight @ common)[:, None] * common
    state["backbone.layer3_outconv.weight"] = SHARPNESS * weight[:, :, None, None]


def drawn_matcher(flavour: Flavour, *, size: int = 640, seed: int = 0) -> LoftrMatcher:
    from gim_sfm.matchers.networks.gim_loftr import GimLoftrBackbone

    network: Any = LoFTR(pretrained=None, config={**default_cfg, "fine_concat_coarse_feat": flavour.context})
    if flavour.colour:
        network.backbone = GimLoftrBackbone()
    state = shaken(network, seed)
    return LoftrMatcher(state, device=CPU, precision=torch.float32, image_size=size, flavour=flavour)


def texture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    picture = np.zeros((size[1], size[0], 3), np.float32)
    for cell in (3, 8, 20):
        coarse = random.random((size[1] // cell + 2, size[0] // cell + 2, 3), dtype=np.float32)
        picture += cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(picture * 85, 0, 255).astype(np.uint8)


def photo_of(pixels: np.ndarray) -> Photo:
    return Photo(pixels, (pixels.shape[1], pixels.shape[0]))


def shifted_pair(size: tuple[int, int] = (160, 128), seed: int = 0) -> tuple[Photo, Photo]:
    """Two views of a plane, 16 and 8 pixels apart."""
    whole = texture((size[0] + 16, size[1] + 8), seed)
    return photo_of(whole[: size[1], : size[0]].copy()), photo_of(whole[8:, 16:].copy())


def by_cell(found: Correspondences) -> dict[tuple[float, ...], tuple[float, ...]]:
    return {tuple(a): tuple(b) for a, b in zip(found.points0.tolist(), found.points1.tolist(), strict=True)}


def assert_same(one: Correspondences, other: Correspondences, *, atol: float = 1e-3) -> None:
    np.testing.assert_allclose(one.points0, other.points0, atol=1e-4)
    np.testing.assert_allclose(one.points1, other.points1, atol=atol)
    np.testing.assert_allclose(one.scores, other.scores, atol=atol)


def test_loftr_is_the_network_of_kornia():
    network: Any = LoFTR(pretrained=None, config=default_cfg)
    state = shaken(network, seed=0)
    network.load_state_dict(dict(state))
    pair = shifted_pair()
    grey = [
        torch.from_numpy(cv2.cvtColor(photo.pixels.astype(np.float32) / 255, cv2.COLOR_RGB2GRAY))[None, None]
        for photo in pair
    ]
    with torch.inference_mode():
        theirs = network.eval()({"image0": grey[0], "image1": grey[1]})
    state = {f"matcher.{key}": value for key, value in state.items()}
    matcher = LoftrMatcher(state, device=CPU, precision=torch.float32, image_size=640, flavour=LOFTR)
    found = matcher.correspond([pair])[0]
    assert len(found) == len(theirs["confidence"]) > 30
    # Its authors' supervision, and so what it learned, puts the first pixel's centre at 0.5.
    assert largest_gap(found.points0 + 0.5, theirs["keypoints0"]) < 2e-4
    assert largest_gap(found.points1 + 0.5, theirs["keypoints1"]) < 2e-3
    assert largest_gap(found.scores, theirs["confidence"]) < 1e-4


@pytest.mark.parametrize("flavour", [GIM_LOFTR, LOFTR], ids=["gim", "loftr"])
def test_pairs_run_together_give_what_they_give_alone(flavour):
    matcher = drawn_matcher(flavour)
    pairs = [shifted_pair(seed=seed) for seed in range(3)]
    pairs.append((pairs[0][1], pairs[1][0]))
    together = matcher._correspond(pairs)
    assert sum(map(len, together)) > 30
    matcher.remembered.clear()
    for pair, found in zip(pairs, together, strict=True):
        assert_same(found, matcher.correspond([pair])[0], atol=2e-3)


def test_pairs_of_a_size_are_gathered_on_an_accelerator(monkeypatch):
    matcher = drawn_matcher(GIM_LOFTR)
    large, small = photo_of(texture((96, 64))), photo_of(texture((64, 64)))
    pairs = [(large, large), (large, large), (large, small), (large, small), (small, small)]
    assert [len(block) for block in matcher._blocks(pairs)] == [1] * 5
    matcher.device = torch.device("meta")
    assert [len(block) for block in matcher._blocks(pairs)] == [2, 2, 1]
    monkeypatch.setattr("gim_sfm.matchers.loftr.CELL_PAIRS_AT_ONCE", 96 * 96)
    assert [len(block) for block in matcher._blocks(pairs)] == [1, 1, 1, 1, 1]


@pytest.mark.parametrize("flavour", [GIM_LOFTR, LOFTR], ids=["gim", "loftr"])
@pytest.mark.parametrize(
    "sizes", [((64, 48), (7, 5)), ((31, 31), (31, 31)), ((1, 1), (40, 100)), ((200, 3),) * 2]
)
def test_small_and_black_photos_break_nothing(flavour, sizes):
    matcher = drawn_matcher(flavour)
    for fill in (texture, lambda size: np.zeros((size[1], size[0], 3), np.uint8)):
        found = matcher.correspond([tuple(photo_of(fill(size)) for size in sizes)])[0]
        assert found.points0.shape == found.points1.shape == (len(found), 2)
        assert found.points0.dtype == found.points1.dtype == found.scores.dtype == np.float32
        assert np.isfinite(found.points1).all()
    assert matcher.correspond([]) == []


def test_a_photo_without_pixels_is_refused():
    with pytest.raises(InputError, match="no pixels"):
        drawn_matcher(LOFTR).correspond([(Photo(np.zeros((0, 0, 3), np.uint8), (0, 0)),) * 2])


def test_nothing_matched_gives_empty_arrays():
    black = photo_of(np.zeros((96, 128, 3), np.uint8))
    found = drawn_matcher(GIM_LOFTR).correspond([(black, black)])[0]
    assert found.points0.shape == found.points1.shape == (0, 2)
    assert found.scores.shape == (0,)
    none = torch.empty(0, dtype=torch.long)
    assert list(CellMatches(none, none, none, none).pieces(10)) == []


def test_points_lie_in_the_files_pixels():
    pixels = texture((160, 128))
    full, reduced = Photo(pixels, (160, 128)), Photo(pixels, (320, 256), reduction=2)
    plain = drawn_matcher(GIM_LOFTR).correspond([(full, full)])[0]
    found = drawn_matcher(GIM_LOFTR).correspond([(reduced, full)])[0]
    assert len(plain) > 10
    np.testing.assert_allclose(found.points0, plain.points0 * 2 + 0.5)
    np.testing.assert_allclose(found.points1, plain.points1)
    np.testing.assert_allclose(plain.points0 % 8, 0)


def test_large_photos_are_shrunk():
    matcher = drawn_matcher(GIM_LOFTR, size=2048)
    assert matcher._cells(photo_of(np.zeros((1000, 4096, 3), np.uint8))) == (62, 256)
    fitted, _ = fit(photo_of(np.zeros((1000, 4096, 3), np.uint8)), matcher.image_size, 8)
    assert fitted.shape == (496, 2048, 3)
    with pytest.raises(SettingsError, match="2048"):
        drawn_matcher(GIM_LOFTR, size=9999)
    pixels = texture((200, 120))
    small = drawn_matcher(GIM_LOFTR, size=96)
    assert small._see([photo := photo_of(pixels)])[id(photo)].described.shape == (7, 12)


def test_photos_seen_lately_are_not_seen_again(monkeypatch):
    matcher = drawn_matcher(GIM_LOFTR)
    photos = [photo_of(texture((64, 48), seed)) for seed in range(PHOTOS_REMEMBERED + 4)]
    seen: list[int] = []
    describe = matcher.describe
    monkeypatch.setattr(matcher, "describe", lambda images: seen.append(len(images)) or describe(images))
    first = matcher.correspond([(photos[0], photos[1]), (photos[0], photos[2])])
    assert sum(seen) == 3
    again = matcher.correspond([(photos[0], photos[1]), (photos[0], photos[2])])
    assert sum(seen) == 3
    for one, other in zip(first, again, strict=True):
        assert_same(one, other, atol=0)
    matcher.correspond([(photo, photos[0]) for photo in photos])
    assert len(matcher.remembered) == PHOTOS_REMEMBERED
    assert sum(seen) == len(photos)
    # What is no longer remembered is still there for the pair at hand.
    monkeypatch.setattr("gim_sfm.matchers.loftr.PHOTOS_REMEMBERED", 1)
    matcher.correspond([(photos[1], photos[2])])
    assert len(matcher.remembered) == 1


@pytest.mark.parametrize("at_once", [2**22, 700])
def test_confidences_are_a_dual_softmax_whatever_is_held_at_once(at_once, monkeypatch):
    monkeypatch.setattr("gim_sfm.matchers.loftr.SIMILARITIES_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    shape0, shape1 = (9, 11), (8, 13)
    cells0 = torch.randn(99, 64, generator=generator) * 2
    cells1 = torch.randn(104, 64, generator=generator)
    cells1[5:95] += cells0[:90]
    similarity = cells0 @ cells1.T / 64 / 0.1
    confidence = similarity.softmax(0) * similarity.softmax(1)
    inner0, inner1 = torch.zeros(shape0, dtype=torch.bool), torch.zeros(shape1, dtype=torch.bool)
    inner0[2:-2, 2:-2] = inner1[2:-2, 2:-2] = True
    kept = (confidence == confidence.amax(0)) & (confidence == confidence.amax(1)[:, None])
    kept &= (confidence > 0.2) & inner0.flatten()[:, None] & inner1.flatten()
    found = match_cells(cells0[None], cells1[None], shape0, shape1)
    assert [found.cells0.tolist(), found.cells1.tolist()] == kept.nonzero().T.tolist()
    assert len(found) > 10
    torch.testing.assert_close(found.confidences, confidence[kept], atol=1e-5, rtol=1e-4)
