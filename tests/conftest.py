"""What several tests share: the reference material and things dear to build."""

import pathlib
import subprocess
import sys

import pytest

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of reference arrays and photographs beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("reference material absent: no folder 'shared' beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def golden(shared) -> pathlib.Path:
    """Arrays that the original PyTorch implementations computed."""
    return shared / "golden"


def _make_checkpoints(shared, folder, *flags):
    pytest.importorskip("torch", reason="torch absent: published files cannot be made")
    command = [sys.executable, str(shared / "tools" / "make_checkpoints.py")]
    subprocess.run(
        [*command, str(folder), "--seed", "100", *flags],
        check=True,
        capture_output=True,
        text=True,
    )
    return folder


@pytest.fixture(scope="session")
def published(shared, tmp_path_factory) -> pathlib.Path:
    """Checkpoints in the published file formats, weights by rule (seed 100)."""
    return _make_checkpoints(shared, tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="session")
def published_legacy(shared, tmp_path_factory) -> pathlib.Path:
    """The same in the serialization before PyTorch 1.6."""
    return _make_checkpoints(shared, tmp_path_factory.mktemp("legacy"), "--legacy")
