"""What is compiled of a caller's network: once, and not for longer than it lives."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdissect

CONCEPTS = [("-", "-"), ("cat", "object"), ("red", "color")]
IMAGES = np.random.default_rng(0).normal(size=(21, 8, 8, 5)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, (21, 1, 8, 8))


@pytest.fixture
def compiled():
    """Counts compilations; those that the cache on disk answers, too."""
    names = []

    def note(name, seconds, **_):
        if name.endswith("backend_compile_duration"):
            names.append(name)

    jax.monitoring.register_event_duration_secs_listener(note)
    yield names
    jax.monitoring.unregister_event_duration_listener(note)


def dissect(apply, params, images=IMAGES):
    options = {"concepts": CONCEPTS, "layers": ("a", "b"), "batch_size": 4}
    return jdissect.dissect(apply, params, images, LABELS, **options)


def make(power=1):
    def apply(params, images):
        return {"a": images * params**power, "b": jax.nn.relu(images[:, ::2, ::2])}

    return apply


class Model:
    """Something with a method, which says whether it trains."""

    def __init__(self):
        self.factor = 1.0

    def __call__(self, params, images):
        small = jax.nn.relu(images[:, ::2, ::2])
        return {"a": images * params * self.factor, "b": small}

    def apply(self, params, images):
        return self(params, images)


def functions():
    yield "function", make()
    yield "partial", functools.partial(lambda power, *rest: make(power)(*rest), 1)
    yield "jitted", jax.jit(make())
    yield "object", Model()
    model = Model()
    yield "method", model.apply  # another object at every look


def test_the_second_call_compiles_nothing(compiled):
    expected = dissect(make(), jnp.float32(2))
    for name, apply in functions():
        first = dissect(apply, jnp.float32(2))
        compiled.clear()
        if name == "method":
            apply = apply.__self__.apply
        again = dissect(apply, jnp.float32(2))
        third = dissect(apply, jnp.float32(3), IMAGES.copy())
        assert not compiled, (name, compiled)
        for layer in expected:
            for found in (first, again):
                np.testing.assert_array_equal(
                    found[layer].intersection, expected[layer].intersection
                )
        ratio = third["a"].thresholds / first["a"].thresholds
        np.testing.assert_allclose(ratio, 1.5, rtol=1e-6)


def test_a_new_function_compiles_itself_alone(compiled):
    dissect(make(), jnp.float32(2))
    compiled.clear()
    dissect(make(), jnp.float32(2))
    assert len(compiled) == 1


def test_what_a_function_depends_on_is_noticed(compiled):
    """Something it looks up may change: an array, or what it does."""
    shift, model = np.zeros(5, np.float32), Model()

    def apply(params, images):
        return {**model(params, images), "b": images + shift}

    before = dissect(apply, jnp.float32(1))
    compiled.clear()
    shift += 1
    shifted = dissect(apply, jnp.float32(1))
    np.testing.assert_allclose(
        shifted["b"].thresholds, before["b"].thresholds + 1, rtol=1e-5
    )
    model.factor = 2.0
    scaled = dissect(apply, jnp.float32(1))
    np.testing.assert_array_equal(scaled["a"].thresholds, 2 * before["a"].thresholds)
    assert compiled


def test_nothing_is_pinned():
    """Functions, parameters and arrays that they look up go when their caller goes."""

    class Array(np.ndarray):
        pass

    kept = np.ones(5, np.float32).view(Array)
    params = {"scale": jnp.float32(2)}
    model = Model()

    def apply(params, images):
        found = model.apply(params["scale"], images)  # noqa: F821
        return {**found, "b": found["b"] * np.asarray(kept)}  # noqa: F821

    references = [weakref.ref(each) for each in (apply, model, kept, params["scale"])]
    dissect(apply, params)
    dissect(model.apply, params["scale"])
    del apply, model, kept, params
    gc.collect()
    assert [reference() for reference in references] == [None] * 4
