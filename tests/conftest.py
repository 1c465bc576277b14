from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from localization_kit import Place, map_courtyard

from gim_sfm import matchers
from gim_sfm.drawn_world import DrawnWorld, draw_world
from gim_sfm.errors import WeightsError


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Inputs of tests gain nothing from a second thread, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.fixture(scope="session")
def mapped_place(drawn_world: DrawnWorld, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The courtyard, mapped in the frame of its truth without three photos; do not change what is in it."""
    return map_courtyard(drawn_world, tmp_path_factory.mktemp("mapped"))
