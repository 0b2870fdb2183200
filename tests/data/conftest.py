"""The small data sets of `tests.datasets` are for tests of reading too."""

from tests.datasets.conftest import (  # noqa: F401
    broden,
    config,
    photos,
    save_image_fixture,
    save_mask_fixture,
)
