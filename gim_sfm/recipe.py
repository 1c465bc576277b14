"""Settings: frozen sections with unique names, so that a flag, a keyword and a recipe key are one thing."""

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypedDict, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gim_sfm.errors import SettingsError
from gim_sfm.files import write_text


class Section(BaseModel):
    """A frozen group of settings; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_S = TypeVar("_S", bound=Section)


class NetworkSettings(Section):
    """How a matcher is run."""

    weights: Path | None = Field(
        None, description="Folder with the weight files, or one file of weights trained further."
    )
    image_size: int | None = Field(
        None,
        ge=64,
        description="Longest side in pixels at which the network sees a photo [the matcher's own].",
    )
    max_keypoints: int | None = Field(
        None, ge=16, description="Most keypoints of one photo [the matcher's own]."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Arithmetic inside the networks; auto takes the fastest that the processor has."
    )
    batch: int | None = Field(
        None, ge=1, description="Photos or pairs that the network takes at once [1, on a GPU more]."
    )


class MatcherSettings(NetworkSettings):
    """Which matcher, and how it is run."""

    matcher: str = Field(
        "aliked-lightglue", description="Name of the matcher; `gim-sfm matchers` lists them."
    )


class TopViewSettings(MatcherSettings):
    """Which matcher top views of clouds are shown to, and how it is run."""

    matcher: str = Field("root-sift", description="Name of the matcher; `gim-sfm matchers` lists them.")


class MatchingSettings(MatcherSettings):
    """What is matched, and with which network."""

    masks: Path | None = Field(
        None, description="Folder of masks named as COLMAP does (photo.jpg.png, black = leave out)."
    )
    tracks: Literal["auto", "anchored", "merged", "quantised", "coarse-grid"] = Field(
        "auto", description="How dense matches become keypoints that repeat [what suits the matcher]."
    )
    rescue: str | None = Field(
        None, description="Second matcher, for photos that the first one links weakly or not at all."
    )


class GivenSettings(Section):
    """Keypoints and matches that are there already."""

    features: Path | None = Field(
        None, description="Features file of hloc or an earlier run to go on from, with --matches."
    )
    matches: Path | None = Field(
        None, description="Matches file of hloc or an earlier run to go on from, with --features."
    )


class TrialSettings(MatcherSettings):
    """Which matcher is put to a benchmark, and how often its matches are judged."""

    thresholds: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        (), description="Inlier thresholds to try, in pixels [the estimator's own]."
    )
    seeds: int = Field(3, ge=1, description="Seeds to try, where the estimator goes by chance.")
    label: str | None = Field(
        None,
        pattern=r"^[\w.+-]{1,80}$",
        description="Version shown in the results [told from weights and settings].",
    )


class PairingSettings(Section):
    """Which photos are compared with which."""

    pairs: Literal[
        "auto",
        "exhaustive",
        "cascade",
        "sequential",
        "retrieval",
        "spatial",
        "poses",
        "covisible",
        "file",
    ] = Field("auto", description="How pairs are chosen; auto goes by the number of photos.")
    neighbours: int = Field(
        20, ge=1, description="Best partners of each photo (cascade, retrieval, spatial, poses, covisible)."
    )
    overlap: int = Field(10, ge=1, description="Photos ahead that each photo is paired with (sequential).")
    loops: bool = Field(True, description="Look for loop closures by retrieval (sequential).")
    max_distance: float = Field(100.0, gt=0, description="Farthest partner in metres (spatial).")
    max_angle: float = Field(
        60.0, gt=0, le=180, description="Largest angle between viewing directions in degrees (poses)."
    )
    pairs_file: Path | None = Field(None, description="Pair list, one `name0 name1` a line (file).")
    pairs_model: Path | None = Field(None, description="COLMAP model to take pairs from (poses, covisible).")


class CameraSettings(Section):
    """How photos share cameras, and what is known of them."""

    cameras: Literal["exif", "single", "folder", "image"] = Field(
        "exif", description="Photos that share a camera: equal EXIF, all, per folder, or none."
    )
    camera_model: str = Field("SIMPLE_RADIAL", description="Any COLMAP camera model.")
    camera_params: str | None = Field(
        None,
        description="Known parameters of that model for every camera, comma separated, in COLMAP's order.",
    )
    intrinsics: Path | None = Field(
        None, description="Known intrinsics per photo: a COLMAP model folder or a JSON file."
    )


class MappingSettings(Section):
    """How the model is built."""

    mapper: Literal["incremental", "global", "hierarchical"] = Field(
        "incremental", description="Kind of reconstruction."
    )
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    tries: int = Field(1, ge=1, description="Seeds to try (seed, seed+1, ...); the best model is kept first.")
    poses: Path | None = Field(
        None, description="COLMAP model with known poses: triangulate only, in its frame of reference."
    )


class CalibrationSettings(Section):
    """What is done about the camera model after mapping."""

    self_calibration: Literal["auto", "off"] = Field(
        "auto", description="Free principal point and further distortion where the photos determine them."
    )
    refinement: Literal["auto", "on", "off"] = Field(
        "auto", description="Place the model's keypoints to sub-pixels; auto: unless they are SIFT's."
    )


class ExtensionSettings(Section):
    """How new photos join a model."""

    old_photos: Literal["adjust", "fixed"] = Field(
        "fixed",
        description="Poses and cameras of the model: kept to the bit, or adjusted along with the new photos, "
        "which is better where the model is small or weak.",
    )
    pairs: Literal["auto", "exhaustive", "cascade", "file"] = Field(
        "auto", description="How the pairs that hold a new photo are chosen; auto goes by their number."
    )
    neighbours: int = Field(20, ge=1, description="Best partners of each new photo (cascade).")
    pairs_file: Path | None = Field(None, description="Pair list, one `name0 name1` a line (file).")


class LocalizationSettings(NetworkSettings):
    """How photos are localized against a model."""

    matcher: str | None = Field(
        None, description="Name of the matcher; `gim-sfm matchers` lists them [the model's]."
    )
    pairs: Literal["auto", "exhaustive", "retrieval", "covisible", "file"] = Field(
        "auto", description="How photos of the model are chosen for a query; auto goes by their number."
    )
    neighbours: int = Field(
        10, ge=1, description="Photos of the model that a query is compared with (retrieval, covisible)."
    )
    pairs_file: Path | None = Field(None, description="Pair list, one `query photo` a line (file).")
    intrinsics: Path | None = Field(
        None, description="Known intrinsics: hloc's list (name MODEL W H params), a COLMAP model or JSON."
    )
    rig: Path | None = Field(
        None, description="COLMAP's rig file (JSON): queries of equal name after the prefix are one moment."
    )
    seed: int = Field(0, ge=0, description="Seed of everything random.")


class MatcherKeywords(TypedDict, total=False):
    """`MatcherSettings` as keywords."""

    matcher: str
    weights: Path | str | None
    image_size: int | None
    max_keypoints: int | None
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    batch: int | None


class TrialKeywords(MatcherKeywords, total=False):
    """`TrialSettings` as keywords."""

    thresholds: Sequence[float]
    seeds: int
    label: str | None


class ReconstructSettings(MatcherKeywords, total=False):
    """All settings of `reconstruct` as keywords; the sections above say what each one means."""

    masks: Path | str | None
    tracks: Literal["auto", "anchored", "merged", "quantised", "coarse-grid"]
    rescue: str | None
    features: Path | str | None
    matches: Path | str | None
    pairs: Literal[
        "auto",
        "exhaustive",
        "cascade",
        "sequential",
        "retrieval",
        "spatial",
        "poses",
        "covisible",
        "file",
    ]
    neighbours: int
    overlap: int
    loops: bool
    max_distance: float
    max_angle: float
    pairs_file: Path | str | None
    pairs_model: Path | str | None
    cameras: Literal["exif", "single", "folder", "image"]
    camera_model: str
    camera_params: str | None
    intrinsics: Path | str | None
    mapper: Literal["incremental", "global", "hierarchical"]
    seed: int
    tries: int
    poses: Path | str | None
    self_calibration: Literal["auto", "off"]
    refinement: Literal["auto", "on", "off"]


class ExtendSettings(TypedDict, total=False):
    """`ExtensionSettings` as keywords."""

    old_photos: Literal["adjust", "fixed"]
    pairs: Literal["auto", "exhaustive", "cascade", "file"]
    neighbours: int
    pairs_file: Path | str | None


class LocalizeSettings(TypedDict, total=False):
    """`LocalizationSettings` as keywords."""

    matcher: str | None
    weights: Path | str | None
    image_size: int | None
    max_keypoints: int | None
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    batch: int | None
    pairs: Literal["auto", "exhaustive", "retrieval", "covisible", "file"]
    neighbours: int
    pairs_file: Path | str | None
    intrinsics: Path | str | None
    rig: Path | str | None
    seed: int


class Recipe(Section):
    """Every setting of a reconstruction."""

    matching: MatchingSettings = MatchingSettings()
    given: GivenSettings = GivenSettings()
    pairing: PairingSettings = PairingSettings()
    camera: CameraSettings = CameraSettings()
    mapping: MappingSettings = MappingSettings()
    calibration: CalibrationSettings = CalibrationSettings()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a TOML recipe; what it leaves out keeps its default.

        Raises:
            SettingsError: The file is missing, is not TOML, or holds an unknown key or a value out of range.
        """
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(
                f"The recipe {path} cannot be read ({error.strerror}).", remedy="Give an existing TOML file."
            ) from error
        except ValueError as error:
            raise SettingsError(
                f"The recipe {path} is not TOML: {error}.", remedy="Mend the named line."
            ) from error
        _refuse_unknown(tables, cls.model_fields, f"section of {path}")
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise SettingsError(f"[{name}] of {path} is no table.", remedy=f"Write it as [{name}].")
            _refuse_unknown(table, _section_fields(name), f"key in [{name}] of {path}")
        return _validated(cls, tables, str(path))

    def with_settings(self, settings: Mapping[str, Any]) -> Self:
        """This recipe with some settings replaced, named without their section.

        Raises:
            SettingsError: A name that does not exist (the nearest one is told), or a value out of range.
        """
        owners = {key: section for section in type(self).model_fields for key in _section_fields(section)}
        _refuse_unknown(settings, owners, "setting")
        tables = self.model_dump()
        for key, value in settings.items():
            tables[owners[key]][key] = value
        return _validated(type(self), tables, "the settings")

    def write(self, path: Path) -> None:
        """Writes all settings as TOML, replacing the file in one step. Unset ones stand as comments."""
        lines: list[str] = []
        for name, table in self.model_dump(mode="json").items():
            lines.append(f"[{name}]")
            lines += [
                tomli_w.dumps({key: value}).rstrip() if value is not None else f"# {key} ="
                for key, value in table.items()
            ]
            lines.append("")
        write_text(path, "\n".join(lines))


def section_of(kind: type[_S], settings: Mapping[str, Any]) -> _S:
    """A section with some settings replaced.

    Raises:
        SettingsError: A name that does not exist (the nearest one is told), or a value out of range.
    """
    _refuse_unknown(settings, kind.model_fields, "setting")
    return _validated(kind, settings, "the settings")


def digest(*parts: object) -> str:
    """A short fingerprint of JSON-like values, equal exactly when they are equal."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def nearest(name: str, known: Iterable[str]) -> str:
    """'did you mean' for a name that does not exist, or an empty string when nothing is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _section_fields(section: str) -> Mapping[str, Any]:
    annotation = Recipe.model_fields[section].annotation
    assert annotation is not None
    fields: Mapping[str, Any] = annotation.model_fields
    return fields


def _refuse_unknown(given: Iterable[str], known: Mapping[str, Any], what: str) -> None:
    for name in given:
        if name not in known:
            raise SettingsError(
                f"Unknown {what}: {name!r}.{nearest(name, known)}",
                remedy=f"Use one of: {', '.join(known)}.",
            )


def _validated(kind: type[_S], tables: Mapping[str, Any], where: str) -> _S:
    try:
        return kind.model_validate(tables)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"{name} = {first['input']!r} in {where} does not fit: {first['msg']}.",
            remedy="Give a value of that kind.",
        ) from error
