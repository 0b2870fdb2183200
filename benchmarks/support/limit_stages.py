"""The stages that `benchmarks.limit` measures: programs, arguments and floors."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.support import drawn, floors, steps
from benchmarks.support.count import Count, count
from jdissect import models
from jdissect.checkpoints import networks
from jdissect.dissection import passes as passing
from jdissect.models.preprocess import IMAGENET, normalize
from jdissect.models.upernet import SIDE
from jdissect.ops import edge_codes, edges, float_keys, iou, refine, sketch, topk
from jdissect.runtime.devices import Devices
from jdissect.segmenters.parsing import Parser
from jdissect.training.initialization import initial_parameters

CONCEPTS = 1799  # of the vocabulary
_QUANTILE = 0.01


@dataclasses.dataclass(frozen=True)
class Stage:
    """What is measured.

    Attributes:
      name: in the table.
      run: runs it once; the result is not there yet.
      images: number of images per run.
      floor: what an image cannot do without.
      written: what the program does an image, as it is written.
      lowered: floating-point operations an image by XLA's analysis of that; None where
        loops and integers are the most of it, which XLA's analysis leaves out.
    """

    name: str
    run: Callable[[], Any]
    images: int
    floor: Count
    written: Count
    lowered: float | None = None


def of_networks(options, devices: Devices) -> list[Stage]:
    """Classifier, UPerNet, colour network, and label maps from scores.

    Args:
      options: flags, as `benchmarks.limit.OPTIONS` has them.
      devices: where they run.
    """
    rng = np.random.default_rng(0)
    many = 32
    # On a CPU a segmenter sees one image after the other.
    few = 1 if devices.devices[0].platform == "cpu" else 8
    classifier = {"name": options.model, "classes": 1000}
    found = []
    for name, architecture, folder, at_once, side, more in (
        ("classifier", classifier, options.weights, many, 224, ((options.layer,),)),
        ("UPerNet", steps.UPERNET, options.upernet, few, SIDE, ()),
        ("colour network", steps.COLOR, options.color, few, SIDE, ()),
    ):
        apply, params = load(architecture, folder, options.dtype)
        pixels = drawn.photographs(rng, at_once, side)
        images = np.asarray(normalize(pixels, IMAGENET))
        forward = functools.partial(_forward, apply, more)
        shapes = (steps.shapes_of(params), steps.shapes_of(images))
        step = steps.Step(forward, shapes)
        found.append(
            Stage(
                name,
                _bound(devices, lambda _, x, p, f=forward: f(p, x), images, params),
                at_once,
                floors.network(step, at_once),
                count(forward, *shapes) * (1 / at_once),
                jax.jit(forward).lower(*shapes).cost_analysis()["flops"] / at_once,
            )
        )
    return [*found, _label_maps(rng, devices)]


def passes(options, devices: Devices) -> list[Stage]:
    """Sketch, sweep, intersections and top-k, on features of the classifier.

    Args:
      options: flags, as `benchmarks.limit.OPTIONS` has them.
      devices: where they run.
    """
    rng = np.random.default_rng(0)
    classifier = {"name": options.model, "classes": 1000}
    apply, params = load(classifier, options.weights, options.dtype)
    images = options.batch_size * len(devices)
    pixels = normalize(drawn.photographs(rng, images, 224), IMAGENET)
    forward = jax.jit(functools.partial(_forward, apply, ((options.layer,),)))
    maps = np.asarray(forward(params, pixels)[1][options.layer].astype(jnp.float32))
    shapes = steps.Shapes(
        images=images,
        units=maps.shape[-1],
        grid=maps.shape[1],
        mask=options.mask_size,
        concepts=CONCEPTS,
        present=options.concepts,
    )
    zero = np.int32(0)
    valid = np.ones(images, bool)
    samples = edges.sample(float_keys.canonical(maps), shapes.geometry, zero)
    units = shapes.units
    placed = edges.place_edges(np.asarray(samples).reshape(-1, units), _QUANTILE)
    coded, placed = edge_codes.of_edges(placed)
    labels = drawn.label_maps(rng, images, options.mask_size, options.concepts)
    annotated = np.ones((images, shapes.maps), bool)
    group = np.arange(images, dtype=np.int32) % shapes.groups
    category = (np.arange(CONCEPTS) % shapes.maps).astype(np.int32)

    def stage(name, step, start, batch, constants, floor):
        """`batch` is shared out, `constants` are not: the step takes both in order."""

        def update(state, batch, constants):
            return step.function(state, *batch, *constants)

        run = _bound(devices, update, batch, constants, start)
        written = count(step.function, *step.arguments, trips=step.trips)
        return Stage(name, run, images, floor, written * (1 / images))

    sketched = stage(
        "sketch",
        steps.sketch_step(shapes),
        sketch.empty(units),
        (maps, valid),
        (coded, zero),
        floors.sketch(shapes),
    )
    bracket = _bracket(sketched.run(), placed, images * options.mask_size**2)
    cuts = float_keys.cuts(bracket.high)
    return [
        sketched,
        stage(
            "sweep",
            steps.sweep_step(shapes),
            refine.empty(units),
            (maps, valid),
            (refine.as_arguments(bracket), zero),
            floors.sweep(shapes),
        ),
        stage(
            "intersections",
            steps.intersections_step(shapes),
            iou.empty(shapes.groups, CONCEPTS, shapes.maps, units),
            (maps, valid, labels, annotated, group),
            (cuts, category, zero),
            floors.intersections(shapes),
        ),
        stage(
            "top-k",
            steps.topk_step(shapes),
            topk.empty(5, units),
            (maps, np.arange(images, dtype=np.int32), valid),
            (),
            floors.topk(shapes),
        ),
    ]


def load(
    architecture: dict[str, Any], folder: str, dtype: str
) -> tuple[Callable[..., Any], Any]:
    """(apply, params) of a checkpoint, or of random weights."""
    name = architecture["name"]
    if folder and name in networks.SEGMENTERS:
        network = networks.load_segmenter(folder, name, dtype=dtype)
        return network.apply, network.params
    if folder:
        network = networks.load_classifier(folder, name, dtype=dtype)
        return network.apply, network.params
    drawn = initial_parameters(architecture, 0)
    return models.for_inference(architecture, drawn, dtype=dtype)


def _forward(apply, more, params, images):
    return apply(params, images, *more)


def _bound(devices: Devices, step, batch, constants, start=None):
    """Runs `step` on all devices, on arguments that are there already.

    The state is given up to a run and taken from it; without a start there is none.
    """
    stateless = start is None
    state = devices.states(np.zeros(()) if stateless else start)
    moved = devices.spmd(step)
    batch, constants = devices.scatter(batch), devices.replicate(constants)

    def run():
        nonlocal state
        if stateless:
            return moved(devices.states(np.zeros(())), batch, constants)
        state = moved(state, batch, constants)
        return state

    return run


def _bracket(state, placed, pixels: int) -> sketch.Bracket:
    whole = functools.reduce(sketch.merge, passing.per_device(state))
    return sketch.certify(whole, placed, pixels, _QUANTILE).bracket


def _label_maps(rng: np.random.Generator, devices: Devices) -> Stage:
    """Of one image, from scores that change over some pixels."""
    labels, slots = steps.upernet_labels(), steps.PART_SLOTS
    parser = Parser(lambda scores, images, size: scores, labels)
    scores = {
        name: jax.image.resize(
            rng.normal(size=(1, 7, 7, steps.UPERNET[f"{name}s"])).astype(np.float32),
            (1, 56, 56, steps.UPERNET[f"{name}s"]),
            "linear",
        )
        for name in ("object", "part", "material")
    }
    pixels = np.zeros((1, SIDE, SIDE, 3), np.uint8)

    def parse(_, pixels, scores):
        return parser((scores, None), pixels)

    floor = floors.label_maps(scores, slots, len(parser.map_names))
    written = count(
        lambda scores, pixels: parse(None, pixels, scores),
        *(steps.shapes_of(scores), steps.shapes_of(pixels)),
        trips=(3, 3, 3),
    )
    return Stage(
        "label maps", _bound(devices, parse, pixels, scores), 1, floor, written
    )
