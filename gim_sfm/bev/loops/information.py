"""How well a registration fixes each direction: information matrices of relative poses.

All are of errors (x, y, z, turn about x, y, z) of target_from_source in the frame of the source, radians: the
true one is target_from_source times the transform of that error.
"""

import numpy as np
from jaxtyping import Float64

from gim_sfm.bev.refinement import Thinned, measure_stiffness

BLUNT = 1 / 8
"""Standard deviation, in voxels, that is added in all directions: neighbouring points err together, which the
Hessian knows nothing of."""

ARM = 1 / 4
"""Distance, in lengths of the scene, at which a wrong turn moves points by that standard deviation, too."""

SLANTED = 0.03
"""Squared sine of 10 degrees, by which normals err: so much of a direction in the plane is told by them."""

SHORTEST_STEP = 1e-3
"""Way in lengths of the scene that a step of odometry counts at least: nothing is known without error."""

Information = Float64[np.ndarray, "6 6"]
Transform = Float64[np.ndarray, "4 4"]


def measure_information(
    source: Thinned,
    target: Thinned,
    target_from_source: Transform,
    *,
    within: float,
    voxel: float,
    extent: float,
) -> Information:
    """The information matrix of a registration, from how fast points leave the planes of their partners.

    The Hessian, less what slanted normals feign, is divided by the variance of the distances; the covariance
    is its inverse and that of `BLUNT` voxels. What nothing holds is as uncertain as the scene is long.

    Args:
        source: Thinned points.
        target: Thinned points.
        target_from_source: Where they fit, of points relative to the origins of the clouds.
        within: Distance of partners at most.
        voxel: Side of a voxel of both.
        extent: Length of the scene.
    """
    stiffness = measure_stiffness(source, target, target_from_source, within=within)
    units = np.diag([1.0] * 3 + [1 / (ARM * extent)] * 3)
    told = units @ (stiffness.planes - SLANTED * stiffness.points) @ units / stiffness.variance
    values, directions = np.linalg.eigh((told + told.T) / 2)
    known = (directions / np.maximum(values, 1 / extent**2)) @ directions.T
    return _inverse(units @ known @ units + _blunt(voxel, extent))


def expect_of_odometry(way: float, extent: float, drift: float) -> Information:
    """The information of a step of odometry whose errors add up at random, however many steps a way has.

    Args:
        way: Length of the step.
        extent: Length of the scene.
        drift: Standard deviation after a way as long as the scene: of the place as a share of that, of the
            direction in radians.
    """
    lengths = max(way / extent, SHORTEST_STEP)
    return np.diag([1 / (drift * extent) ** 2] * 3 + [1 / drift**2] * 3) / lengths


def about_origin(information: Information, origin: Float64[np.ndarray, "3"]) -> Information:
    """The same for points to which this origin of the source has been added.

    A turn about the new zero moves the old one: its error (place, turn) was (place + turn x origin, turn).
    """
    x, y, z = origin
    old_from_new = np.eye(6)
    old_from_new[:3, 3:] = -np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(old_from_new.T @ information @ old_from_new)


def _blunt(voxel: float, extent: float) -> Float64[np.ndarray, "6 6"]:
    places = BLUNT * voxel
    return np.diag([places**2] * 3 + [(places / (ARM * extent)) ** 2] * 3)


def _inverse(covariance: Float64[np.ndarray, "6 6"]) -> Information:
    information = np.linalg.inv(covariance)
    return np.asarray((information + information.T) / 2)
