"""The config of `tests.datasets` is for scenes too."""

from tests.datasets.conftest import config  # noqa: F401
