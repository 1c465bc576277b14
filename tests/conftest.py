from pathlib import Path

import pytest

from gim_sfm import matchers
from gim_sfm.drawn_world import DrawnWorld, draw_world
from gim_sfm.errors import WeightsError


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos with ground truth, where a checkout has them beside it."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared data set is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def xfeat_weights() -> str:
    """The digest of the smallest networks' weights, fetched if need be."""
    try:
        return matchers.weights_digest("xfeat-lighterglue")
    except WeightsError as error:
        pytest.skip(f"no network weights: {error.message}")


@pytest.fixture(scope="session")
def drawn_world() -> DrawnWorld:
    """Eight small photos of the drawn courtyard."""
    return draw_world(8, (640, 426), seed=1, arc_degrees=70)


@pytest.fixture(scope="session")
def drawn_photos(drawn_world: DrawnWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their folder; do not change what is in it."""
    folder = tmp_path_factory.mktemp("drawn") / "photos"
    drawn_world.write(folder)
    return folder
