"""Self-calibration that COLMAP leaves out: a robust last adjustment, with the principal point where known.

COLMAP keeps the principal point in the middle of the photo, because in small or degenerate sets it drifts:
it trades off with rotation and translation. Real cameras are off by some pixels (cropped, stabilised or
resized photos by many more), and then every relative pose is off as well. Whether a set of photos
determines it can be asked of the photos: leave out some of them, adjust again, and see how far the answer
moves (the delete-a-group jackknife; Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982).
That spread holds all that makes the answer uncertain: weak geometry, and errors that keypoints of one photo
share, which the covariance of the adjustment cannot see and so comes out several times too small. The shift
is accepted where Hotelling's test against that spread says that chance cannot explain it, and where
keypoints held out of the adjustment agree better with the freed camera.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pycolmap
from jaxtyping import Float64, Int64
from scipy import stats

from gim_sfm.sfm.jackknife import leave_out

LARGER_MODEL = {"SIMPLE_RADIAL": "RADIAL"}
"""Camera models that contain another one and have a further distortion term. None is grown to OPENCV: its
tangential terms trade off with the principal point, and poses came out worse."""
NEW_TERM = {"RADIAL": 4}
"""Place of the parameter that a model has and the one it contains lacks; zero means it is not needed."""
MIN_PHOTOS = 5
MOST_PHOTOS = 1500
"""The test solves dense systems of six unknowns a photo."""
GROUPS = 10
"""Jackknife groups; a camera with fewer photos has one photo a group."""
TRACKS = 2000
"""Tracks that the tests look at, drawn at random from larger models; the last adjustment sees all."""
MIN_TRACK_LENGTH = 3
SIGNIFICANCE = 0.002
"""Chance at which a camera that needs no freeing is freed all the same."""
HELD_OUT = 0.25
"""Share of the tracks of four views or more that give one observation away for the held-out error."""
LOSS_SCALE = 1.0
"""Error in pixels from which on an observation counts for less."""
MAX_ERROR, MIN_ANGLE = 4.0, 1.5
"""Reprojection error in pixels and triangulation angle in degrees that COLMAP's mapper filters points by."""
TOLERANCE = 1e-5
"""Relative change of the cost at which an adjustment ends; ten times less moves nothing by 0.01 pixels."""
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Freedom:
    """What an adjustment may change of the cameras.

    Attributes:
        fixed: Cameras whose intrinsics stay as they are.
        principal_point: Cameras whose principal point is free; of all others focal length and distortion are.
        models: Camera model by camera, where it is to be a larger one.
    """

    fixed: frozenset[int] = frozenset()
    principal_point: frozenset[int] = frozenset()
    models: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What leaving out photos says of the shift of some parameters from where they were.

    Attributes:
        shift: How far they moved when freed.
        deviation: Standard deviation of that.
        chance: Probability of such a shift if they were right where they were.
    """

    shift: Float64[np.ndarray, " p"]
    deviation: Float64[np.ndarray, " p"]
    chance: float

    @property
    def convincing(self) -> bool:
        """Whether chance does not explain the shift."""
        return self.chance < SIGNIFICANCE


@dataclass(frozen=True, slots=True)
class CameraCalibration:
    """What self-calibration did to one camera.

    Attributes:
        camera_id: Number of the camera in the model.
        photos: Registered photos that share it.
        verdict: What was done and why, in words.
        model_before: COLMAP camera model after mapping.
        model_after: COLMAP camera model now.
        before: Parameters after mapping.
        after: Parameters now.
        principal_point: What the photos say of the principal point; None where they were not asked.
        held_out: Mean error in pixels of held-out keypoints, as mapped and freed; empty where not measured.
    """

    camera_id: int
    photos: int
    verdict: str
    model_before: str
    model_after: str
    before: tuple[float, ...]
    after: tuple[float, ...]
    principal_point: Evidence | None = None
    held_out: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Calibration:
    """The adjusted model and what was done to its cameras."""

    model: pycolmap.Reconstruction
    cameras: tuple[CameraCalibration, ...]


def calibrate(model: pycolmap.Reconstruction, *, fixed: Iterable[int] = (), seed: int = 0) -> Calibration:
    """Adjusts a model robustly and frees what its photos determine of its cameras.

    Poses, points, focal lengths and distortion are always adjusted, with Cauchy's loss at the scale of one
    pixel. Principal point and further distortion terms of a camera are freed where at least five photos
    share it and the tests described above are passed.

    Args:
        model: A model as mapped; not changed.
        fixed: Cameras whose intrinsics are known and stay as they are.
        seed: Draws the tracks that are looked at and those held out.
    """
    plain = Freedom(frozenset(fixed))
    sample = adjusted(_thinned(model, seed), plain)
    tested = frozenset(number for number in model.cameras if not _why_not_tested(model, plain, number))
    principal, larger = _evidence(sample, tested)
    chosen = Freedom(plain.fixed, _convinced(principal, sample), larger)
    held_out = _held_out_errors(sample, plain, chosen, seed)
    chosen = _without_worse(chosen, held_out)
    final = adjusted(model, chosen)
    pycolmap.ObservationManager(final).filter_all_points3D(MAX_ERROR, MIN_ANGLE)
    final.update_point_3d_errors()
    cameras = (
        CameraCalibration(
            camera_id=number,
            photos=_photos(model, number),
            verdict=_why_not_tested(model, plain, number)
            or _verdict(number, chosen, principal.get(number), held_out.get(number, ())),
            model_before=model.cameras[number].model_name,
            model_after=final.cameras[number].model_name,
            before=tuple(model.cameras[number].params.tolist()),
            after=tuple(final.cameras[number].params.tolist()),
            principal_point=principal.get(number),
            held_out=held_out.get(number, ()),
        )
        for number in sorted(model.cameras)
    )
    return Calibration(final, tuple(cameras))


def _why_not_tested(model: pycolmap.Reconstruction, plain: Freedom, number: int) -> str:
    photos = _photos(model, number)
    if number in plain.fixed:
        return "Kept: its intrinsics were given."
    if len(model.cameras[number].principal_point_idxs()) != 2:
        return f"Kept: {model.cameras[number].model_name} has no principal point."
    if model.num_reg_images() > MOST_PHOTOS:
        return f"Kept: the model has {model.num_reg_images()} photos, the test takes at most {MOST_PHOTOS}."
    if photos < MIN_PHOTOS:
        return f"Kept: {photos} photos share it, {MIN_PHOTOS} are needed to test it."
    return ""


def _verdict(number: int, chosen: Freedom, principal: Evidence | None, held_out: tuple[float, ...]) -> str:
    assert principal is not None
    moved = " and ".join(
        f"{axis} by {shift:+.1f} ± {deviation:.1f} px"
        for axis, shift, deviation in zip("xy", principal.shift, principal.deviation, strict=True)
    )
    larger = f" Its distortion needs the terms of {chosen.models[number]}." if number in chosen.models else ""
    if number in chosen.principal_point:
        return f"Freed: the principal point moved in {moved}.{larger}"
    if larger:
        return (
            f"Freed distortion only.{larger} The principal point would move in {moved}, which may be chance."
        )
    if held_out and not principal.convincing:
        return "Kept: held-out keypoints do not agree better with further distortion terms."
    if held_out:
        return f"Kept: held-out keypoints do not agree better with a principal point moved in {moved}."
    return f"Kept: the principal point would move in {moved}, which may be chance."


def _photos(model: pycolmap.Reconstruction, number: int) -> int:
    return len(_image_ids(model, number))


def _image_ids(model: pycolmap.Reconstruction, number: int) -> list[int]:
    """Registered photos of a camera, by name."""
    images = (model.images[image_id] for image_id in model.reg_image_ids())
    return [
        image.image_id for image in sorted(images, key=lambda image: image.name) if image.camera_id == number
    ]


def adjusted(model: pycolmap.Reconstruction, freedom: Freedom) -> pycolmap.Reconstruction:
    """A copy of the model after a robust adjustment.

    COLMAP frees the principal points of all cameras or of none. Where some are to be free and others not, the
    free ones and all the rest take turns.
    """
    model = pycolmap.Reconstruction(model)
    for number, name in freedom.models.items():
        enlarge(model.cameras[number], name)
    others = frozenset(model.cameras) - freedom.fixed - freedom.principal_point
    for _ in range(ROUNDS if others and freedom.principal_point else 1):
        if freedom.principal_point:
            _adjust(model, freedom.fixed | others, principal_point=True)
        if others or not freedom.principal_point:
            _adjust(model, freedom.fixed, principal_point=False)
    return model


def _adjust(model: pycolmap.Reconstruction, constant: Iterable[int], *, principal_point: bool) -> None:
    options = robust_options(principal_point=principal_point)
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
    for number in constant:
        config.set_constant_cam_intrinsics(number)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()


def adjust_points(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    """A copy of a model whose points fit its keypoints best, while poses and cameras stay to the bit."""
    moved = pycolmap.Reconstruction(model)
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in moved.reg_image_ids():
        config.add_image(image_id)
        config.set_constant_rig_from_world_pose(moved.images[image_id].frame_id)
    for number in moved.cameras:
        config.set_constant_cam_intrinsics(number)
    pycolmap.create_default_bundle_adjuster(robust_options(), config, moved).solve()
    put_back(moved, model)
    pycolmap.ObservationManager(moved).filter_all_points3D(MAX_ERROR, MIN_ANGLE)
    moved.update_point_3d_errors()
    return moved


def put_back(changed: pycolmap.Reconstruction, model: pycolmap.Reconstruction) -> None:
    """Gives photos and cameras that an adjustment held, in place, to the bit what they had before it."""
    for number in model.reg_image_ids():
        before, after = model.images[number].frame, changed.images[number].frame
        assert before is not None and after is not None
        after.rig_from_world = before.rig_from_world
    for number, camera in model.cameras.items():
        changed.cameras[number].params = camera.params


def robust_options(*, principal_point: bool = False) -> pycolmap.BundleAdjustmentOptions:
    """An adjustment with Cauchy's loss, in one thread, that frees focal lengths and distortion."""
    options = pycolmap.BundleAdjustmentOptions(refine_principal_point=principal_point, print_summary=False)
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = LOSS_SCALE
    options.ceres.solver_options.num_threads = 1
    options.ceres.solver_options.function_tolerance = TOLERANCE
    return options


def enlarge(camera: pycolmap.Camera, name: str) -> None:
    """Makes a camera one of a model that has one more term, which is zero at first."""
    if camera.model_name != name:
        params = [*camera.params.tolist(), 0.0]
        camera.model = pycolmap.CameraModelId.__members__[name]
        camera.params = params


def _principal_point(camera: pycolmap.Camera) -> Float64[np.ndarray, " 2"]:
    return np.array([camera.principal_point_x, camera.principal_point_y])


def _thinned(model: pycolmap.Reconstruction, seed: int) -> pycolmap.Reconstruction:
    """A copy with at most TRACKS tracks, all seen by three photos or more."""
    model = pycolmap.Reconstruction(model)
    long = [number for number, point in model.points3D.items() if point.track.length() >= MIN_TRACK_LENGTH]
    kept = np.random.default_rng(seed).permutation(np.sort(np.array(long, np.int64)))[:TRACKS]
    for number in set(model.points3D) - set(kept.tolist()):
        model.delete_point3D(number)
    return model


def _evidence(
    sample: pycolmap.Reconstruction, tested: frozenset[int]
) -> tuple[dict[int, Evidence], dict[int, str]]:
    """What the photos say of the principal points, and the larger camera models that they call for."""
    if not tested:
        return {}, {}
    models = {number: sample.cameras[number].model_name for number in tested}
    grown = {number: LARGER_MODEL[name] for number, name in models.items() if name in LARGER_MODEL}
    fitted = adjusted(sample, Freedom(frozenset(sample.cameras) - tested, tested, grown))
    repeated = {number: np.array(params) for number, params in _left_out(fitted, tested).items()}
    principal = {}
    for number in tested:
        columns = fitted.cameras[number].principal_point_idxs()
        shift = _principal_point(fitted.cameras[number]) - _principal_point(sample.cameras[number])
        principal[number] = _jackknife(shift, repeated[number][:, columns])
    larger = {
        number: name
        for number, name in grown.items()
        if _needs_term(fitted.cameras[number], repeated[number])
    }
    return principal, larger


def _needs_term(camera: pycolmap.Camera, repeated: Float64[np.ndarray, "g k"]) -> bool:
    place = [NEW_TERM[camera.model_name]]
    return _jackknife(np.asarray(camera.params)[place], repeated[:, place]).convincing


def _left_out(
    fitted: pycolmap.Reconstruction, cameras: frozenset[int]
) -> dict[int, list[Float64[np.ndarray, " k"]]]:
    """The parameters of the cameras as they come out when each group of photos in turn is left out.

    Groups take every GROUPS-th photo by name, so that what is left still covers the scene.
    """
    image_ids = {number: _image_ids(fitted, number) for number in sorted(cameras)}
    groups = range(min(GROUPS, max(map(len, image_ids.values()))))
    left_out = [[image_id for ids in image_ids.values() for image_id in ids[k::GROUPS]] for k in groups]
    repeated = leave_out(fitted, list(image_ids), left_out, LOSS_SCALE)
    return {
        number: [params[number] for params in repeated[: min(GROUPS, len(ids))]]
        for number, ids in image_ids.items()
    }


def _jackknife(shift: Float64[np.ndarray, " p"], repeated: Float64[np.ndarray, "g p"]) -> Evidence:
    """Hotelling's T-squared test of a shift against its delete-a-group jackknife covariance."""
    groups, terms = repeated.shape
    covariance = np.cov(repeated.T, bias=True).reshape(terms, terms) * (groups - 1)
    deviation = np.sqrt(np.diag(covariance))
    if groups <= terms or not np.all(np.isfinite(covariance)) or np.any(deviation == 0):
        return Evidence(shift, deviation, 1.0)
    squared = float(shift @ np.linalg.solve(covariance, shift))
    ratio = squared * (groups - terms) / (terms * (groups - 1))
    return Evidence(shift, deviation, float(stats.f.sf(ratio, terms, groups - terms)))


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Observations kept from an adjustment: camera, photo, point and pixel of each."""

    cameras: Int64[np.ndarray, " n"]
    images: Int64[np.ndarray, " n"]
    points: Int64[np.ndarray, " n"]
    pixels: Float64[np.ndarray, "n 2"]


def _held_out_errors(
    sample: pycolmap.Reconstruction, plain: Freedom, chosen: Freedom, seed: int
) -> dict[int, tuple[float, float]]:
    """Mean error in pixels of held-out keypoints by changed camera, adjusted plainly and as chosen."""
    changed = chosen.principal_point | chosen.models.keys()
    if not changed:
        return {}
    training, held_out = _split(sample, seed)
    errors = [_errors(adjusted(training, freedom), held_out) for freedom in (plain, chosen)]
    return {
        number: (float(errors[0][mine].mean()), float(errors[1][mine].mean()))
        for number in changed
        if (mine := held_out.cameras == number).any()
    }


def _split(sample: pycolmap.Reconstruction, seed: int) -> tuple[pycolmap.Reconstruction, HeldOut]:
    training = pycolmap.Reconstruction(sample)
    random = np.random.default_rng(seed)
    rows: list[tuple[int, int, int]] = []
    pixels: list[Float64[np.ndarray, " 2"]] = []
    for number in sorted(sample.points3D):
        elements = sample.points3D[number].track.elements
        if len(elements) > MIN_TRACK_LENGTH and random.random() < HELD_OUT:
            element = elements[random.integers(len(elements))]
            image = sample.images[element.image_id]
            rows.append((image.camera_id, image.image_id, number))
            pixels.append(image.points2D[element.point2D_idx].xy)
            training.delete_observation(element.image_id, element.point2D_idx)
    table = np.array(rows, np.int64).reshape(-1, 3)
    return training, HeldOut(table[:, 0], table[:, 1], table[:, 2], np.array(pixels).reshape(-1, 2))


def _errors(model: pycolmap.Reconstruction, held_out: HeldOut) -> Float64[np.ndarray, " n"]:
    errors = np.empty(len(held_out.pixels))
    for image_id in np.unique(held_out.images):
        rows = held_out.images == image_id
        image = model.images[int(image_id)]
        points = np.array([model.points3D[int(number)].xyz for number in held_out.points[rows]])
        pixels = model.cameras[image.camera_id].img_from_cam(image.cam_from_world() * points)
        errors[rows] = np.linalg.norm(pixels - held_out.pixels[rows], axis=1)
    return np.minimum(np.nan_to_num(errors, nan=MAX_ERROR), MAX_ERROR)


def _convinced(principal: Mapping[int, Evidence], sample: pycolmap.Reconstruction) -> frozenset[int]:
    """Cameras whose principal point is surely elsewhere, and still on the photo."""
    found: set[int] = set()
    for number, evidence in principal.items():
        camera = sample.cameras[number]
        x, y = _principal_point(camera) + evidence.shift
        if evidence.convincing and 0 < x < camera.width and 0 < y < camera.height:
            found.add(number)
    return frozenset(found)


def _without_worse(chosen: Freedom, held_out: Mapping[int, tuple[float, float]]) -> Freedom:
    worse = {number for number, (before, after) in held_out.items() if after >= before}
    models = {number: name for number, name in chosen.models.items() if number not in worse}
    return replace(chosen, principal_point=chosen.principal_point - worse, models=models)
