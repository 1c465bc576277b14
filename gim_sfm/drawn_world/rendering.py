"""Light: which surface every ray meets first, how bright it is there, and what a camera makes of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int16, UInt8

from gim_sfm.drawn_world.cameras import DrawnCamera, Pose
from gim_sfm.drawn_world.surfaces import NEAR, Field, Rays, Surface, Vector
from gim_sfm.drawn_world.textures import Texture, pyramid

SAMPLES = 2
"""Rays across a pixel in x and y."""

AMBIENT = np.array([0.62, 0.65, 0.70], np.float32)
SUN = np.array([0.80, 0.74, 0.63], np.float32)
ZENITH = np.array([96, 142, 206], np.float32)
HORIZON = np.array([206, 220, 234], np.float32)
SHADOW_TEXELS = 1536
SHADOW_BIAS = 0.03
"""Metres by which a place may lie behind what the sun sees and still be lit."""

REMAP_COLUMNS = 4096
NOTHING = -1


@dataclass(frozen=True, slots=True)
class Hits:
    """What every ray of a grid meets first.

    Attributes:
        distance: Along the ray, infinite where it meets nothing; the depth for a camera's rays.
        surface: Index of the surface, NOTHING for the sky.
        u: Place along the texture's rows, 0 to 1.
        v: Place along the texture's columns, 0 to 1.
    """

    distance: Float32[np.ndarray, "height width"]
    surface: Int16[np.ndarray, "height width"]
    u: Float32[np.ndarray, "height width"]
    v: Float32[np.ndarray, "height width"]


def camera_rays(camera: DrawnCamera, samples: int = 1) -> Rays:
    """The rays of a camera's pixels in its own frame."""
    directions = camera.rays(samples)
    return Rays((0.0, 0.0, 0.0), (directions[..., 0].copy(), directions[..., 1].copy(), 1.0))


def cast(
    surfaces: Sequence[Surface],
    rays: Rays,
    shape: tuple[int, int],
    frame_from_world: Pose,
    windows: Sequence[tuple[slice, slice] | None],
) -> Hits:
    """Finds the first surface on every ray.

    Args:
        surfaces: What there is.
        rays: Given in a frame of their own.
        shape: (height, width) of the grid of rays.
        frame_from_world: That frame's pose.
        windows: For each surface the rows and columns that can meet it at all; None where none can.
    """
    distance = np.full(shape, np.inf, np.float32)
    surface = np.full(shape, NOTHING, np.int16)
    u, v = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    rotation, shift = frame_from_world[:, :3], frame_from_world[:, 3]
    for index, (candidate, window) in enumerate(zip(surfaces, windows, strict=True)):
        if window is None:
            continue
        hit = candidate.intersect(rays.window(*window), rotation, shift)
        nearer = hit.distance < distance[window]
        np.copyto(distance[window], hit.distance, where=nearer)
        np.copyto(surface[window], index, where=nearer)
        np.copyto(u[window], hit.u, where=nearer, casting="same_kind")
        np.copyto(v[window], hit.v, where=nearer, casting="same_kind")
    return Hits(distance, surface, u, v)


def camera_windows(
    surfaces: Sequence[Surface], camera: DrawnCamera, cam_from_world: Pose, samples: int
) -> list[tuple[slice, slice] | None]:
    """The part of the picture in which each surface can show, generously."""
    centre = -cam_from_world[:, :3].T @ cam_from_world[:, 3]
    return [
        _camera_window(surface.outline(), camera, cam_from_world, samples) if surface.faces(centre) else None
        for surface in surfaces
    ]


def _camera_window(
    outline: Float64[np.ndarray, "n 3"], camera: DrawnCamera, cam_from_world: Pose, samples: int
) -> tuple[slice, slice] | None:
    points = outline @ cam_from_world[:, :3].T + cam_from_world[:, 3]
    if (points[:, 2] < NEAR).all():
        return None
    if (points[:, 2] < 4 * NEAR).any():  # it passes beside the camera: its projection is no use
        return slice(None), slice(None)
    pixels = (points[:, :2] / points[:, 2:]) * camera.focal + camera.principal_point
    middle = np.asarray(camera.principal_point)
    slack = 2.0
    if any(camera.distortion):
        reach = np.linalg.norm(camera.size)
        bent = camera.project(np.array([reach / 2 / camera.focal, 0.0, 1.0]))[0] - middle[0]
        stretch = max(bent / (reach / 2), 2 * (reach / 2) / bent - 1, 1.0)
        pixels = np.concatenate(
            [pixels, middle + (pixels - middle) * stretch, middle + (pixels - middle) / stretch]
        )
    low = np.floor((pixels.min(0) - slack) * samples).clip(0, np.array(camera.size) * samples)
    high = np.ceil((pixels.max(0) + slack) * samples).clip(0, np.array(camera.size) * samples)
    if (high <= low).any():
        return None
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


@dataclass(frozen=True, slots=True)
class Sunlight:
    """What the sun sees, for shadows.

    Attributes:
        sun_from_world: Frame with z along the light.
        low: (x, y) of the map's first texel, metres.
        texels_per_metre: Its fineness.
        depth: Distance along the light of the first surface.
    """

    sun_from_world: Pose
    low: Float64[np.ndarray, " 2"]
    texels_per_metre: float
    depth: Float32[np.ndarray, "height width"]

    @property
    def towards(self) -> Float32[np.ndarray, " 3"]:
        """Direction to the sun, in the world."""
        return np.asarray(-self.sun_from_world[2, :3], np.float32)


def shine(surfaces: Sequence[Surface], sun_from_world: Pose) -> Sunlight:
    """Makes the shadow map of a set of surfaces."""
    outlines = [item.outline() @ sun_from_world[:, :3].T + sun_from_world[:, 3] for item in surfaces]
    low = np.min([outline.min(0) for outline in outlines], axis=0)[:2]
    high = np.max([outline.max(0) for outline in outlines], axis=0)[:2]
    density = SHADOW_TEXELS / float(np.max(high - low))
    width, height = (int(value) + 1 for value in (high - low) * density)
    x = np.broadcast_to((np.arange(width) / density + low[0]).astype(np.float32), (height, width))
    y = np.broadcast_to((np.arange(height) / density + low[1]).astype(np.float32)[:, None], (height, width))
    windows: list[tuple[slice, slice] | None] = []
    for outline in outlines:
        first = np.floor((outline.min(0)[:2] - low) * density).astype(int)
        last = np.ceil((outline.max(0)[:2] - low) * density).astype(int) + 1
        windows.append((slice(first[1], last[1]), slice(first[0], last[0])))
    hits = cast(surfaces, Rays((x, y, 0.0), (0.0, 0.0, 1.0)), (height, width), sun_from_world, windows)
    return Sunlight(sun_from_world, low, density, hits.distance)


def depth_map(
    surfaces: Sequence[Surface], camera: DrawnCamera, cam_from_world: Pose
) -> Float32[np.ndarray, "height width"]:
    """Depth (z in the camera's frame, metres) at every pixel's centre; infinite in the sky."""
    windows = camera_windows(surfaces, camera, cam_from_world, 1)
    width, height = camera.size
    return cast(surfaces, camera_rays(camera), (height, width), cam_from_world, windows).distance


def render(
    surfaces: Sequence[Surface],
    pyramids: Sequence[list[Texture]],
    sunlight: Sunlight,
    camera: DrawnCamera,
    pose: Pose,
) -> Float32[np.ndarray, "height width 3"]:
    """The light that reaches every pixel, RGB in 0 to 255 before exposure and noise.

    Args:
        surfaces: What there is.
        pyramids: The textures of the surfaces, each with its halvings.
        sunlight: Shadow map.
        camera: Its lens and size.
        pose: cam_from_world.
    """
    width, height = camera.size
    shape = (height * SAMPLES, width * SAMPLES)
    rays = camera_rays(camera, SAMPLES)
    hits = cast(surfaces, rays, shape, pose, camera_windows(surfaces, camera, pose, SAMPLES))
    fine = _sky(rays, pose).reshape(-1, 3)
    x, y = (np.asarray(part).ravel() for part in rays.direction[:2])
    centre = -pose[:, :3].T @ pose[:, 3]
    for index, places in _by_surface(hits.surface):
        depth, u, v = (field.ravel()[places] for field in (hits.distance, hits.u, hits.v))
        towards = np.stack([x[places], y[places], np.ones_like(depth)], 1) @ pose[:, :3].astype(np.float32)
        normals = surfaces[index].normals(u, v)
        slant = np.abs((towards * normals).sum(1)) / np.linalg.norm(towards, axis=1)
        footprint = depth * np.float32(surfaces[index].texels_per_metre / (camera.focal * SAMPLES))
        level = np.log2(np.maximum(footprint / np.sqrt(np.maximum(slant, 0.05)), 1e-3))
        albedo = _sample(pyramids[index], u, v, level)
        sun = np.maximum(normals @ sunlight.towards, 0) * _lit(sunlight, towards * depth[:, None], centre)
        sky = 0.75 + 0.25 * normals[:, 2:]
        fine[places] = albedo * (AMBIENT * sky + SUN * sun[:, None])
    return cv2.resize(fine.reshape(*shape, 3), (width, height), interpolation=cv2.INTER_AREA)


def _by_surface(surface: Int16[np.ndarray, "h w"]) -> Iterator[tuple[int, np.ndarray]]:
    """For every surface that is seen: its index, and the flat indices of the rays that meet it."""
    flat = surface.ravel()
    order = np.argsort(flat, kind="stable")
    indices, starts = np.unique(flat[order], return_index=True)
    for index, places in zip(indices.tolist(), np.split(order, starts[1:]), strict=True):
        if index != NOTHING:
            yield index, places


def _sky(rays: Rays, pose: Pose) -> Float32[np.ndarray, "h w 3"]:
    x, y, z = rays.direction
    up = np.asarray(x * np.float32(pose[0, 2]) + y * np.float32(pose[1, 2]) + z * np.float32(pose[2, 2]))
    height = np.clip(up * 1.6, 0, 1)[..., None]
    return np.asarray(HORIZON + (ZENITH - HORIZON) * height, np.float32)


def _sample(levels: list[Texture], u: Field, v: Field, level: Field) -> Float32[np.ndarray, "n 3"]:
    """Texture colours, blended between two halvings."""
    level = np.clip(level, 0, len(levels) - 1.001)
    coarse = level.astype(np.int8)
    colours = np.empty((len(u), 3), np.float32)
    for number in range(int(coarse.min()), int(coarse.max()) + 1):
        chosen = np.flatnonzero(coarse == number)
        if len(chosen):
            blend = (level[chosen] - number)[:, None]
            first = _bilinear(levels[number], u[chosen], v[chosen])
            second = _bilinear(levels[number + 1], u[chosen], v[chosen])
            colours[chosen] = first + blend * (second - first)
    return colours


def _bilinear(texture: Texture, u: Field, v: Field) -> Float32[np.ndarray, "n 3"]:
    height, width = texture.shape[:2]
    rows = -(-len(u) // REMAP_COLUMNS)
    maps = np.zeros((2, rows * REMAP_COLUMNS), np.float32)
    maps[0, : len(u)] = u * np.float32(width) - np.float32(0.5)
    maps[1, : len(u)] = v * np.float32(height) - np.float32(0.5)
    grids = maps.reshape(2, rows, REMAP_COLUMNS)
    colours = cv2.remap(texture, grids[0], grids[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return colours.reshape(-1, 3)[: len(u)].astype(np.float32)


def _lit(sunlight: Sunlight, offset: Float32[np.ndarray, "n 3"], centre: Vector) -> Field:
    """Share of the sun that reaches places (centre + offset), from the four texels of its map around them."""
    rotation = sunlight.sun_from_world[:, :3]
    start = rotation @ centre + sunlight.sun_from_world[:, 3]
    start[:2] -= sunlight.low
    place = offset @ rotation.T.astype(np.float32) + start.astype(np.float32)
    height, width = sunlight.depth.shape
    column = np.clip(place[:, 0] * np.float32(sunlight.texels_per_metre), 0, width - 1.001)
    row = np.clip(place[:, 1] * np.float32(sunlight.texels_per_metre), 0, height - 1.001)
    left, top = column.astype(np.int32), row.astype(np.int32)
    right_share, lower_share = column - left, row - top
    flat, corner = sunlight.depth.ravel(), top * width + left
    limit = place[:, 2] - np.float32(SHADOW_BIAS)
    seen = [(flat[corner + step] > limit).astype(np.float32) for step in (0, 1, width, width + 1)]
    upper = seen[0] + right_share * (seen[1] - seen[0])
    lower = seen[2] + right_share * (seen[3] - seen[2])
    return np.asarray(upper + lower_share * (lower - upper), np.float32)


def all_pyramids(surfaces: Sequence[Surface]) -> list[list[Texture]]:
    """The textures of surfaces with their halvings."""
    return [pyramid(surface.texture) for surface in surfaces]


def expose(
    light: Float32[np.ndarray, "height width 3"],
    camera: DrawnCamera,
    rng: np.random.Generator,
    *,
    stops: float = 0.0,
    noise: float = 1.5,
) -> UInt8[np.ndarray, "height width 3"]:
    """What the sensor records: darker towards the corners, brighter or darker as a whole, with grain.

    Args:
        light: What `render` returned.
        camera: For the fall-off, the fourth power of the ray's cosine, half of which the lens makes up for.
        rng: Where the grain comes from.
        stops: Exposure; one more doubles the light.
        noise: Standard deviation of the grain at middle grey, in grey levels.
    """
    rays = camera.rays()
    falloff = 1.0 / (1.0 + (rays**2).sum(-1, keepdims=True))
    # tone curve: grey levels go with light to the power 1 / 2.2
    exposed = light * (falloff * np.float32(2.0 ** (stops / 2.2)))
    grain = rng.standard_normal(light.shape, dtype=np.float32)
    spread = np.float32(noise) * np.sqrt(0.4 + exposed / np.float32(212.0))
    return np.asarray(np.clip(exposed + grain * spread + 0.5, 0, 255), np.uint8)
