"""Lets networks return feature maps as a dict of named endpoints, without hooks."""

import re
from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Array, Float

from jdissect.base.errors import UserError

Maps = Float[Array, "batch height width unit"]


def check_endpoints(
    endpoints: str | Sequence[str], endpoint_names: Sequence[str]
) -> tuple[str, ...]:
    """Returns the requested endpoints as a tuple; one name may be given as a string.

    Raises:
      UserError: a name is not an endpoint; the message lists the endpoints.
    """
    endpoints = (endpoints,) if isinstance(endpoints, str) else tuple(endpoints)
    unknown = [name for name in endpoints if name not in endpoint_names]
    if unknown:
        raise UserError(
            f"the network has no layer {', '.join(map(repr, unknown))}.\n"
            f"Its layers are {listed(endpoint_names)}."
        )
    return endpoints


def listed(names: Sequence[str]) -> str:
    """Returns names on one line; three or more numbered ones in a row are a range.

    So "layer1.0", "layer1.1", "layer1.2", "layer1" are "layer1.0 to layer1.2, layer1".
    """
    rows: list[list[str]] = []
    for name in names:
        if rows and _follows(rows[-1][-1], name):
            rows[-1].append(name)
        else:
            rows.append([name])
    parts = [row if len(row) < 3 else [f"{row[0]} to {row[-1]}"] for row in rows]
    return ", ".join(part for row in parts for part in row)


def _follows(name: str, following: str) -> bool:
    match = re.fullmatch(r"(.*?)(\d+)", name)
    return match is not None and following == f"{match[1]}{int(match[2]) + 1}"


def run_stages(
    stages: Sequence[tuple[str, Callable[[Maps], Maps]]],
    images: Maps,
    head: Callable[[Maps], Float[Array, "batch classes"]],
    endpoints: str | Sequence[str] | None,
    masks: Mapping[str, Float[Array, " unit"]] | None = None,
    *,
    default: Sequence[str] = (),
    beside: Mapping[str, Callable[[Maps], Maps]] | None = None,
) -> tuple[Float[Array, "batch classes"] | None, dict[str, Maps]]:
    """Runs a network of consecutive stages as deep as the endpoints require.

    Args:
      stages: (name, function) in order of depth.
      images: input of the first stage.
      head: maps the last stage's output to logits.
      endpoints: None for the outputs of `default` and the logits; () for the logits
        only; or names of stages: then no deeper stage is computed.
      masks: {stage: factor per unit}, multiplied with the stage's output before it is
        used; 0 removes a unit from everything that follows.
      default: names of stages; by default all.
      beside: {endpoint: function of `images`} that no stage reads; computed only if
        the endpoint is named.

    Returns:
      logits, or None if names were given, and {endpoint: feature map}.

    Raises:
      UserError: a name is not a stage.
    """
    names = [name for name, _ in stages]
    beside = beside or {}
    asked: Sequence[str]
    if endpoints is None:
        asked = default or names
    else:
        asked = check_endpoints(endpoints, [*beside, *names])
    masks = masks or {}
    check_endpoints(tuple(masks), names)
    to_the_end = endpoints is None or not asked
    features = {name: beside[name](images) for name in asked if name in beside}
    remaining = set(asked) - set(features)
    for name, stage in stages:
        if not remaining and not to_the_end:
            break
        images = stage(images)
        if name in masks:
            images = images * masks[name].astype(images.dtype)
        if name in remaining:
            features[name] = images
            remaining.remove(name)
    return (head(images) if to_the_end else None), features
