"""Lets networks return feature maps as a dict of named endpoints, without hooks."""

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
            f"Its layers are {', '.join(endpoint_names)}."
        )
    return endpoints


def run_stages(
    stages: Sequence[tuple[str, Callable[[Maps], Maps]]],
    images: Maps,
    head: Callable[[Maps], Float[Array, "batch classes"]],
    endpoints: str | Sequence[str] | None,
    masks: Mapping[str, Float[Array, " unit"]] | None = None,
) -> tuple[Float[Array, "batch classes"] | None, dict[str, Maps]]:
    """Runs a network of consecutive stages as deep as the endpoints require.

    Args:
      stages: (name, function) in order of depth.
      images: input of the first stage.
      head: maps the last stage's output to logits.
      endpoints: None for every stage's output and the logits; () for the logits only;
        or names of stages: then no deeper stage is computed.
      masks: {stage: factor per unit}, multiplied with the stage's output before it is
        used; 0 removes a unit from everything that follows.

    Returns:
      logits, or None if names were given, and {endpoint: feature map}.

    Raises:
      UserError: a name is not a stage.
    """
    names = [name for name, _ in stages]
    asked = names if endpoints is None else check_endpoints(endpoints, names)
    masks = masks or {}
    check_endpoints(tuple(masks), names)
    remaining = set(asked)
    to_the_end = endpoints is None or not asked
    features = {}
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
