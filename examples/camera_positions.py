"""Print where each photo was taken, in the model's frame: python examples/camera_positions.py OUT."""

import sys
from pathlib import Path

from gim_sfm.geometry import camera_centres
from gim_sfm.sfm.known import read_poses

for name, view in sorted(read_poses(Path(sys.argv[1]) / "sparse" / "0").items()):
    print(name, *camera_centres(view.cam_from_world.matrix()).round(3))
