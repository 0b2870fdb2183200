"""Provides `jdissect.find_formulas`: formulas over concepts for the units of a run."""

import os
from collections.abc import Sequence

from jdissect.base.progress import is_watched
from jdissect.formulas.stored import Formulas, Settings
from jdissect.jobs import compose as job


def find_formulas(
    run: str | os.PathLike,
    *,
    layers: str | Sequence[str] = (),
    length: int = 3,
    method: str = "beam",
    beam: int = 5,
    penalty: float = 1.0,
    operators: Sequence[str] = ("or", "and", "and_not"),
    progress: bool | None = None,
    **places: str,
) -> Formulas | dict[str, Formulas]:
    """Finds formulas over concepts that say where units fire (Mu and Andreas 2020).

    The images of a finished run are read again, and its counts checked. What is found
    is also written beside the run's results.

    Args:
      run: the run directory.
      layers: one or several layers of the run; by default all.
      length: most concepts in a formula.
      method: 'beam', or 'optimum' for the best of all formulas of up to 3 concepts.
      beam: number of formulas in the beam.
      penalty: factor on the IoU for each concept after the first, in (0, 1].
      operators: of 'or', 'and', 'and_not'.
      progress: whether to show how far it is; by default on a terminal and in a
        notebook.
      places: `data_path`, `weights`, `cache_dir`: where images, weights and cached
        label maps are now, if not where the run's config says.

    Returns:
      the formulas of the layer if `layers` is a string, else {layer: formulas}.

    Raises:
      UserError (a ValueError): a setting is wrong, or the run cannot be counted again.
    """
    settings = Settings(length, method, beam, float(penalty), tuple(operators))
    names = [layers] if isinstance(layers, str) else list(layers)
    silent = not (is_watched() if progress is None else progress)
    found = {
        layer: formulas
        for layer, formulas, _ in job.compose(run, settings, names, silent, **places)
    }
    return found[layers] if isinstance(layers, str) else found
