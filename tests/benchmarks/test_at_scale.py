"""What takes how long over many images, at a size that takes seconds."""

import pytest

from benchmarks import at_scale
from benchmarks.support import kernels, record
from jdissect.base.errors import UserError
from jdissect.checkpoints import networks
from jdissect.models.preprocess import IMAGENET
from tests.small_segmenters import draw


@pytest.fixture
def weights(small, tmp_path):
    architecture = {"name": "resnet18", "width": 4, "classes": 5}
    networks.save(
        tmp_path / "resnet50",
        draw(architecture, 0),
        networks.describe_classifier(architecture, IMAGENET, source={}),
    )
    for name in ("upernet", "color"):
        (tmp_path / name).symlink_to(getattr(small, name))
    return tmp_path


@pytest.mark.slow
def test_stages_and_kernels(weights, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sizes = ["--images=6", "--few=2", "--batch_size=2", "--segment_batch=1"]
    command = ["at_scale", f"--weights={weights}", "--dtype=float32", *sizes]
    assert not at_scale.main([*command, "--layers=stem,layer4", "--save=some"])
    lines = capsys.readouterr().out.splitlines()
    stages = ["first pass", "sketch", "sweeps", "intersections", "whole run"]
    assert [name for name in stages if any(x.startswith(name) for x in lines)] == stages
    page = (tmp_path / "some.md").read_text()
    assert "6 images, 2 layers" in page and "--images=6" in page
    assert "longest kernels" in page and page.count("%") == 5
    with pytest.raises(UserError, match="--few is 6; it must be less than --images, 6"):
        at_scale.main([*command, "--few=6"])


def event(name, pid=1, tid=1, **more):
    return {"ph": "X", "name": name, "pid": pid, "tid": tid, "dur": 10, **more}


def named(kind, name, **place):
    return {"ph": "M", "name": kind, "args": {"name": name}, **place}


def test_an_accelerators_kernels_are_those_of_its_streams():
    events = [
        named("process_name", "/host:CPU", pid=1),
        named("process_name", "/device:GPU:0", pid=2),
        named("thread_name", "Stream #13(compute)", pid=2, tid=3),
        named("thread_name", "XLA Modules", pid=2, tid=4),
        event("python", tid=3, args={"hlo_op": "dot"}),
        event("gemm", pid=2, tid=3),
        event("module", pid=2, tid=4),
    ]
    assert [each["name"] for each in kernels.kernels(events)] == ["gemm"]


def test_a_processors_kernels_are_operations_that_hold_no_others():
    inside = {"args": {"hlo_op": "x"}}
    events = [
        named("process_name", "/host:CPU", pid=1),
        event("python"),
        event("while.3", **inside),
        event("dot.7", **inside),
        event("nothing", **inside) | {"dur": 0},
    ]
    assert [each["name"] for each in kernels.kernels(events)] == ["dot.7"]


def test_kernels_of_a_run_share_its_time():
    import jax
    import jax.numpy as jnp

    run = jax.jit(lambda x: jnp.sin(x @ x).sum())
    x = jnp.ones((200, 200))
    run(x).block_until_ready()
    found = kernels.longest(lambda: run(x), most=2)
    assert 1 <= len(found) <= 2 and all(took > 0 for _, took, _ in found)
    assert sum(share for *_, share in found) <= 1.001
    assert kernels.in_words([("dot", 1.0, 0.25)]) == "`dot` 25%"
