"""Lay one point cloud on another, and write both: python examples/merge_scans.py SOURCE TARGET OUT.ply."""

import sys

import numpy as np

import gim_sfm
from gim_sfm.bev.cloud_formats import load_cloud, write_cloud
from gim_sfm.bev.pointcloud import PointCloud

source, target, out = sys.argv[1:]
found = gim_sfm.register_clouds(source, target, output=f"{out}.registration").registration
print(f"overlap {found.overlap:.2f}, rmse {found.rmse:.2f}, confidence {found.confidence:.2f}")
moved = load_cloud(source).moved(found.target_from_source)
write_cloud(out, PointCloud.of(np.concatenate([moved.coordinates, load_cloud(target).coordinates])))
