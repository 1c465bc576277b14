"""From a verified database to models: incremental, global or hierarchical mapping, with several seeds.

COLMAP does the work (Schönberger and Frahm, Structure-from-Motion Revisited, CVPR 2016; Pan et al., Global
Structure-from-Motion Revisited, ECCV 2024). What is here makes it repeatable and resumable, and tells which
thresholds had to be lowered.
"""

import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pycolmap

from gim_sfm.errors import ReconstructionError
from gim_sfm.files import mend_folder, replacing_folder
from gim_sfm.progress import Advance
from gim_sfm.recipe import MappingSettings, digest
from gim_sfm.sfm.known import KnownView

logger = logging.getLogger(__name__)

T = TypeVar("T")

PROVENANCE = "provenance.json"
ERRORS_ONLY = 2
CANCEL_SECONDS = 10.0
REPEATABLE_UP_TO = 200
"""Photos up to which mapping runs in one thread: sums taken in several threads differ in their last digits
from run to run, and the mapper amplifies that."""


@dataclass(frozen=True, slots=True)
class Relaxation:
    """Thresholds of the incremental mapper that are lowered when nothing initialises."""

    name: str
    init_min_num_inliers: int
    init_min_tri_angle: float
    init_max_forward_motion: float
    abs_pose_min_num_inliers: int
    abs_pose_min_inlier_ratio: float
    ignore_two_view_tracks: bool


RELAXATIONS = (
    Relaxation("", 100, 16.0, 0.95, 30, 0.25, ignore_two_view_tracks=True),
    Relaxation("initial pair from 30 inliers and 3 degrees", 30, 3.0, 0.99, 20, 0.15, False),
    Relaxation("initial pair from 15 inliers and 1 degree", 15, 1.0, 1.0, 15, 0.10, False),
)
"""Tried in this order until a model comes; COLMAP itself halves the first two numbers of each twice. Two
photos alone have two-view tracks only."""


@dataclass(frozen=True, slots=True)
class Component:
    """One connected model of an attempt.

    Attributes:
        folder: COLMAP model folder.
        photos: Photos registered.
        points: Points triangulated.
        reprojection_error: Mean over observations, pixels.
    """

    folder: Path
    photos: int
    points: int
    reprojection_error: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one seed gave.

    Attributes:
        seed: The seed.
        components: Models, best first; empty when nothing could be initialised.
        relaxation: Which thresholds had to be lowered before a model came; empty for COLMAP's own.
    """

    seed: int
    components: tuple[Component, ...]
    relaxation: str


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a mapper.

    Attributes:
        database: COLMAP database with verified pairs.
        photos: Folder the photo names refer to.
        seed: Seed of everything random.
        advance: Called with the number of photos just registered.
        constant: Cameras whose intrinsics are known and stay as they are.
    """

    database: Path
    photos: Path
    seed: int
    advance: Advance
    constant: frozenset[int] = frozenset()


Mapper = Callable[[Job, Path], str]
"""Writes COLMAP models into numbered folders of a folder; returns the name of the relaxation it needed."""


def build_models(
    database: Path,
    photos: Path,
    out: Path,
    settings: MappingSettings,
    *,
    inputs: str,
    constant: frozenset[int] = frozenset(),
    advance: Advance = lambda _: None,
    verbose: bool = False,
) -> tuple[Attempt, ...]:
    """Maps the database once per seed and keeps every model under out/tries/seed-<seed>/<k>.

    An attempt that an earlier run finished with the same inputs is taken as it is.

    Args:
        database: COLMAP database with verified pairs.
        photos: Folder the photo names refer to.
        out: Output folder of the whole reconstruction.
        settings: Kind of mapping, first seed, number of tries.
        inputs: Digest of all that went into the database.
        constant: Cameras whose intrinsics are known and stay as they are (the global mapper can only keep all
            cameras or none, and keeps them where all are known).
        advance: Called with 1 for every photo registered (incremental only).
        verbose: Let COLMAP's log through.

    Returns:
        The attempts, best first: most photos registered, then most points, then least reprojection error.

    Raises:
        ReconstructionError: No attempt gave a model.
    """
    with quiet(verbose):
        attempts = [
            _attempt(
                Job(database, photos, seed, advance, constant),
                out / "tries" / f"seed-{seed}",
                settings.mapper,
                inputs,
            )
            for seed in range(settings.seed, settings.seed + settings.tries)
        ]
    if not any(attempt.components for attempt in attempts):
        raise ReconstructionError(
            f"No two photos of {photos} could start a model, even with lowered thresholds.",
            remedy="Take photos that overlap more and are not all from one spot, or try another matcher.",
        )
    return tuple(
        sorted(attempts, key=lambda attempt: [_rank(part) for part in attempt.components[:1]] or [(1,)])
    )


def _rank(component: Component) -> tuple[float, ...]:
    return -component.photos, -component.points, component.reprojection_error


def _attempt(job: Job, folder: Path, mapper: str, inputs: str) -> Attempt:
    key = digest(inputs, mapper, job.seed, pycolmap.__version__, [asdict(row) for row in RELAXATIONS])
    mend_folder(folder)
    finished = _read_attempt(folder, key)
    if finished is not None:
        logger.info("%s is finished already.", folder)
        return finished
    with replacing_folder(folder) as temporary:
        relaxation = MAPPERS[mapper](job, temporary)
        components = _renumber(temporary)
        record = {
            "key": key,
            "seed": job.seed,
            "mapper": mapper,
            "relaxation": relaxation,
            "components": [{**asdict(part), "folder": part.folder.name} for part in components],
        }
        (temporary / PROVENANCE).write_text(json.dumps(record, indent=1), encoding="utf-8")
    return _read_attempt(folder, key) or Attempt(job.seed, (), relaxation)


def _renumber(folder: Path) -> list[Component]:
    """Renames the model folders so that 0 is the best."""
    paths = [path for path in folder.iterdir() if path.is_dir()]
    ranked = sorted((_component(path) for path in paths), key=_rank)
    for part in ranked:
        part.folder.rename(folder / f"model-{part.folder.name}")
    for number, part in enumerate(ranked):
        (folder / f"model-{part.folder.name}").rename(folder / str(number))
    return [replace(part, folder=folder / str(number)) for number, part in enumerate(ranked)]


def _component(folder: Path) -> Component:
    model = pycolmap.Reconstruction(folder)
    return Component(
        folder, model.num_reg_images(), model.num_points3D(), model.compute_mean_reprojection_error()
    )


def _read_attempt(folder: Path, key: str) -> Attempt | None:
    try:
        record = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if record.get("key") != key:
        return None
    parts = (Component(**{**row, "folder": folder / row["folder"]}) for row in record["components"])
    return Attempt(record["seed"], tuple(parts), record["relaxation"])


def _map_incrementally(job: Job, out: Path) -> str:
    for relaxation in RELAXATIONS:
        if _cancellable(partial(_run_incremental, job, out, incremental_options(job, relaxation))):
            return relaxation.name
        logger.warning("Nothing initialised with %s.", relaxation.name or "COLMAP's thresholds")
    return RELAXATIONS[-1].name


def _run_incremental(
    job: Job, out: Path, options: pycolmap.IncrementalPipelineOptions, token: pycolmap.CancellationToken
) -> int:
    models = pycolmap.incremental_mapping(
        job.database,
        job.photos,
        out,
        options,
        initial_image_pair_callback=partial(_registered, job, 2),
        next_image_callback=partial(_registered, job, 1),
        cancellation_token=token,
    )
    return len(models)


def _registered(job: Job, photos: int) -> None:
    job.advance(photos)


def incremental_options(job: Job, relaxation: Relaxation) -> pycolmap.IncrementalPipelineOptions:
    """How COLMAP's incremental mapper is to work on a job."""
    options = pycolmap.IncrementalPipelineOptions(
        random_seed=job.seed, num_threads=_threads(job), extract_colors=False
    )
    options.mapper.init_min_num_inliers = relaxation.init_min_num_inliers
    options.mapper.init_min_tri_angle = relaxation.init_min_tri_angle
    options.mapper.init_max_forward_motion = relaxation.init_max_forward_motion
    options.mapper.abs_pose_min_num_inliers = relaxation.abs_pose_min_num_inliers
    options.mapper.abs_pose_min_inlier_ratio = relaxation.abs_pose_min_inlier_ratio
    options.triangulation.ignore_two_view_tracks = relaxation.ignore_two_view_tracks
    options.constant_cameras = set(job.constant)
    return options


def _map_globally(job: Job, out: Path) -> str:
    options = pycolmap.GlobalPipelineOptions(random_seed=job.seed, num_threads=_threads(job))
    if job.constant and job.constant == _all_cameras(job.database):
        options.mapper.bundle_adjustment.refine_focal_length = False
        options.mapper.bundle_adjustment.refine_extra_params = False
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".view-graph-") as scratch:
        calibrated = Path(scratch) / "database.db"
        shutil.copyfile(job.database, calibrated)
        _calibrate_view_graph(calibrated, job.seed)
        _cancellable(lambda _: pycolmap.global_mapping(calibrated, job.photos, out, options))
    return ""


def _calibrate_view_graph(database: Path, seed: int) -> None:
    with pycolmap.Database.open(database) as opened:
        known = all(camera.has_prior_focal_length for camera in opened.read_all_cameras())
    options = pycolmap.ViewGraphCalibrationOptions(random_seed=seed)
    if not known and not _cancellable(lambda _: pycolmap.calibrate_view_graph(database, options)):
        logger.warning("The focal lengths could not be found from the pairs; the guesses are used.")


def _map_hierarchically(job: Job, out: Path) -> str:
    options = pycolmap.HierarchicalPipelineOptions(
        num_threads=_threads(job), incremental_options=incremental_options(job, RELAXATIONS[0])
    )
    _cancellable(lambda _: pycolmap.hierarchical_mapping(job.database, job.photos, out, options))
    return ""


MAPPERS: Mapping[str, Mapper] = {
    "incremental": _map_incrementally,
    "global": _map_globally,
    "hierarchical": _map_hierarchically,
}


def _all_cameras(database: Path) -> frozenset[int]:
    with pycolmap.Database.open(database) as opened:
        return frozenset(camera.camera_id for camera in opened.read_all_cameras())


def _threads(job: Job) -> int:
    with pycolmap.Database.open(job.database) as opened:
        return 1 if opened.num_images() <= REPEATABLE_UP_TO else -1


def triangulate(
    database: Path, photos: Path, poses: Mapping[str, KnownView], out: Path, *, verbose: bool = False
) -> pycolmap.Reconstruction:
    """Triangulates the matches from known poses; cameras and poses stay exactly as given.

    Args:
        database: COLMAP database with verified pairs.
        photos: Folder the photo names refer to.
        poses: Camera and pose by photo; photos of the database that are not here are left out.
        out: Where COLMAP writes the model; must exist.
        verbose: Let COLMAP's log through.

    Raises:
        ReconstructionError: No photo of the database has a pose, or no point could be triangulated.
    """
    start = _posed_reconstruction(database, poses)
    options = pycolmap.IncrementalPipelineOptions(random_seed=0, num_threads=1, extract_colors=False)
    with quiet(verbose):
        model = _cancellable(
            lambda token: pycolmap.triangulate_points(
                start, database, photos, out, options=options, cancellation_token=token
            )
        )
    if not model.num_points3D():
        raise ReconstructionError(
            "No point could be triangulated from the given poses.",
            remedy="Check that the poses are cam_from_world and belong to these photos.",
        )
    return model


def _posed_reconstruction(database: Path, poses: Mapping[str, KnownView]) -> pycolmap.Reconstruction:
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as opened:
        images = [image for image in opened.read_all_images() if image.name in poses]
    if not images:
        raise ReconstructionError(
            "None of the photos has a known pose.",
            remedy="Name the photos as in the folder, with subfolders.",
        )
    for image in images:
        view = poses[image.name]
        if not model.exists_camera(image.camera_id):
            camera = pycolmap.Camera(view.camera.todict())
            camera.camera_id = image.camera_id
            model.add_camera_with_trivial_rig(camera)
        model.add_image_with_trivial_frame(
            pycolmap.Image(name=image.name, camera_id=image.camera_id, image_id=image.image_id),
            view.cam_from_world,
        )
    return model


def publish(
    models: Sequence[pycolmap.Reconstruction],
    photos: Path,
    sparse: Path,
    provenance: Mapping[str, object],
    *,
    coloured_by: Collection[str] | None = None,
) -> None:
    """Colours the points and replaces sparse/ by these models, numbered from 0.

    Args:
        models: Best first.
        photos: Folder the photo names refer to.
        sparse: The folder to replace.
        provenance: What the models came from; written beside them.
        coloured_by: Photos that give colours, to points that have none; None for all, to all points.
    """
    with replacing_folder(sparse) as temporary:
        for number, model in enumerate(models):
            (temporary / str(number)).mkdir()
            _colour(model, photos, coloured_by)
            model.write(temporary / str(number))
        (temporary / PROVENANCE).write_text(json.dumps(provenance, indent=1), encoding="utf-8")


def _colour(model: pycolmap.Reconstruction, photos: Path, coloured_by: Collection[str] | None) -> None:
    if coloured_by is None:
        model.extract_colors_for_all_images(photos)
        return
    for number in model.reg_image_ids():
        if model.images[number].name in coloured_by:
            model.extract_colors_for_image(number, photos)


@contextmanager
def quiet(verbose: bool = False) -> Iterator[None]:
    """Holds back all of COLMAP's log but errors while the block runs, unless asked for."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = 0 if verbose else ERRORS_ONLY
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before


def _cancellable(work: Callable[[pycolmap.CancellationToken], T]) -> T:
    """Runs C++ work in a thread, so that Ctrl-C reaches Python at once, and stops what heeds its token."""
    token = pycolmap.CancellationToken()
    outcome: Future[T] = Future()
    threading.Thread(target=_fulfil, args=(outcome, work, token), name="mapping", daemon=True).start()
    try:
        return outcome.result()
    except KeyboardInterrupt:
        token.cancel()
        wait([outcome], timeout=CANCEL_SECONDS)
        raise


def _fulfil(
    outcome: Future[T], work: Callable[[pycolmap.CancellationToken], T], token: pycolmap.CancellationToken
) -> None:
    try:
        outcome.set_result(work(token))
    except BaseException as error:
        outcome.set_exception(error)
