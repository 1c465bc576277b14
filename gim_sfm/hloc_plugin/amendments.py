"""What the command lines check and mend before hloc's own code runs, stage by stage."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

from gim_sfm.errors import InputError, SettingsError
from gim_sfm.hloc_plugin.dense import DenseMatching
from gim_sfm.hloc_plugin.names import read_pair_names, require_usable_names
from gim_sfm.hloc_plugin.presets import detector_output, is_ours
from gim_sfm.hloc_plugin.unfinished import take_out_unwritten

Amendment = Callable[[ModuleType, Sequence[str]], list[str]]
"""Given a module of hloc and the arguments of its command line, what arguments are to be added."""


def before_extraction(module: ModuleType, arguments: Sequence[str]) -> list[str]:
    """Refuses names that later stages would fail on."""
    given = _known(arguments)
    if given.image_dir and given.image_dir.is_dir():
        names = module.ImageDataset(given.image_dir, {}, given.image_list).names
        require_usable_names(given.image_dir, names)
    return []


def before_matching(module: ModuleType, arguments: Sequence[str]) -> list[str]:
    """Takes the features that a matcher's own detector made, where none are named."""
    given = _known(arguments)
    # Whatever fails between them, hloc's writers would wait for ever, and the process with them.
    vars(module)["Thread"] = partial(Thread, daemon=True)
    conf = module.confs.get(given.conf)
    if conf is None or given.pairs is None:
        return []
    require_usable_names(Path(), read_pair_names(given.pairs))
    own = is_ours(conf) and given.features is None
    features = detector_output(conf["model"]["matcher"]) if own else given.features
    _require_own_features(conf, features)
    if given.export_dir and features:
        take_out_unwritten(given.export_dir / f"{features}_{conf['output']}_{given.pairs.stem}.h5")
    return ["--features", features] if own else []


def before_dense(module: ModuleType, arguments: Sequence[str]) -> list[str]:
    """Names the files as hloc does in Python; its command line writes any matches to ./matches-loftr."""
    given = _known(arguments)
    vars(module)["match_and_assign"] = DenseMatching(module)
    if given.pairs:
        require_usable_names(given.image_dir or Path(), read_pair_names(given.pairs))
    conf = module.confs.get(given.conf)
    if conf is None or not is_ours(conf) or given.pairs is None or given.export_dir is None:
        return []
    given.export_dir.mkdir(parents=True, exist_ok=True)
    matches = given.export_dir / f"{conf['output']}_{given.pairs.stem}.h5"
    return [
        *([] if given.matches else ["--matches", str(matches)]),
        *([] if given.features else ["--features", "feats_"]),
    ]


def before_reconstruction(module: ModuleType, _arguments: Sequence[str]) -> list[str]:
    """Makes COLMAP see matches that are not verified (`--skip_geometric_verification`)."""
    vars(module)["run_reconstruction"] = _with_known_geometries(module, module.run_reconstruction)
    return []


def triangulate(module: ModuleType) -> None:
    """Reads hloc's flags of this stage and runs it; its own parser ends in a KeyError whatever it is given.

    Raises:
        InputError: A pair names a photo that is not in the reference model.
    """
    parser = argparse.ArgumentParser()
    for flag in ("sfm_dir", "reference_sfm_model", "image_dir", "pairs", "features", "matches"):
        parser.add_argument(f"--{flag}", type=Path, required=True)
    parser.add_argument("--min_match_score", type=float)
    for flag in ("skip_geometric_verification", "estimate_two_view_geometries", "verbose"):
        parser.add_argument(f"--{flag}", action="store_true")
    given = vars(parser.parse_args())
    reference = given.pop("reference_sfm_model")
    _require_in_model(reference, given["pairs"])
    vars(module)["run_triangulation"] = _with_known_geometries(module, module.run_triangulation)
    module.main(reference_model=reference, **given)


def _with_known_geometries(module: ModuleType, run: Callable[..., Any]) -> Callable[..., Any]:
    """A function of hloc whose second argument is a database, given one whose matches COLMAP takes.

    hloc leaves the kind of geometry of matches that it accepts itself undefined, and the COLMAP of pycolmap
    4.2 passes over such pairs: the model would be empty.
    """
    kinds = module.pycolmap.TwoViewGeometryConfiguration

    def amended(folder: Path, database_path: Path, *rest: Any, **more: Any) -> Any:
        with module.pycolmap.Database.open(database_path) as database:
            for pair_id, geometry in zip(*database.read_two_view_geometries(), strict=True):
                if geometry.config == kinds.UNDEFINED and len(geometry.inlier_matches):
                    geometry.config = kinds.CALIBRATED
                    database.update_two_view_geometry(
                        *module.pycolmap.pair_id_to_image_pair(pair_id), geometry
                    )
        return run(folder, database_path, *rest, **more)

    return amended


def _require_in_model(reference: Path, pairs: Path) -> None:
    from gim_sfm.sfm.known import read_model

    known = {image.name for image in read_model(reference).images.values()}
    strange = sorted(read_pair_names(pairs) - known)
    if strange:
        raise InputError(
            f"{pairs} names {len(strange)} photos that are not in {reference}, first of them {strange[0]}.",
            remedy="Leave their pairs out: hloc triangulates photos of the reference model only.",
        )


def _require_own_features(conf: Mapping[str, Any], features: str | None) -> None:
    """Features of another detector of ours; those made elsewhere may be of the right one."""
    ours = is_ours(conf) and features is not None and features.startswith(detector_output(""))
    if ours and features != detector_output(conf["model"]["matcher"]):
        raise SettingsError(
            f"{features} are not features of {conf['model']['matcher']}.",
            remedy="Extract and match with the same name, or leave --features out.",
        )


def _known(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags that an amendment goes by, as far as they are given; hloc's parser judges them all."""
    parser = argparse.ArgumentParser(add_help=False)
    for flag in ("image_dir", "image_list", "export_dir", "pairs", "matches"):
        parser.add_argument(f"--{flag}", type=Path)
    for flag in ("conf", "features"):
        parser.add_argument(f"--{flag}")
    return parser.parse_known_args(arguments)[0]


AMENDMENTS: Mapping[str, Amendment] = {
    "extract_features": before_extraction,
    "match_features": before_matching,
    "match_dense": before_dense,
    "reconstruction": before_reconstruction,
}

PROGRAMS: Mapping[str, Callable[[ModuleType], None]] = {"triangulation": triangulate}
"""Stages that are run in another way than by hloc's own command line."""
