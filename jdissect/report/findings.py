"""Reads what the commands that follow a dissection found for the layers of a run.

compose gives formulas, chance p-values and counts by chance, verify verified labels,
and scores the scores that need activations. A layer may have any of them; files of
another run are not shown.
"""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from jdissect.base import safe_reading
from jdissect.base.errors import UserError
from jdissect.results.run_directory import MARK

if TYPE_CHECKING:
    from jdissect.chance_level.layer import Chance
    from jdissect.formulas.stored import Formulas
    from jdissect.scoring.measured import Measured
    from jdissect.verification.verified import Verified

# {kind: (what people call it, the command that finds it)}
KINDS = {
    "formulas": ("formulas", "compose"),
    "chance": ("chance level", "chance"),
    "verified": ("verified labels", "verify"),
    "measured": ("scores of activations", "scores"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
    """What is known of a layer beside its counts; None for what is not.

    Attributes:
      formulas: the best formula of every unit.
      chance: best IoUs against chance.
      verified: which labels are right.
      measured: scores that need activations.
    """

    formulas: "Formulas | None" = None
    chance: "Chance | None" = None
    verified: "Verified | None" = None
    measured: "Measured | None" = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those of KINDS that are known."""
        return tuple(kind for kind in KINDS if getattr(self, kind) is not None)


NOTHING = Findings()


def read(run: Any, layer: str) -> Findings:
    """Reads what is known of a layer of a run.

    Args:
      run: a `finished_run.StoredRun`.
      layer: name of the layer.

    Raises:
      UserError: a file is damaged, or does not fit the layer.
    """
    if run.by_itself:
        return NOTHING
    from jdissect.chance_level import stored as chance
    from jdissect.formulas import stored as formulas
    from jdissect.scoring import measured

    folder, result = run.folder / layer, run.result(layer)
    found = Findings(
        formulas=formulas.read(folder),
        chance=chance.read(folder),
        verified=_verified(run, layer),
        measured=measured.read(folder),
    )
    names = tuple(map(str, result.unit_names))
    if found.formulas is not None and found.formulas.unit_names != names:
        raise _misfit(folder, "formulas.csv")
    if found.verified is not None:
        unit = found.verified.unit
        if len(np.unique(unit)) < len(unit) or unit.max(initial=-1) >= len(names):
            raise _misfit(folder, "verified.json")
    scores = found.measured
    if scores is not None and scores.pearson.shape != result.intersection.shape:
        raise _misfit(folder, "scores.npz")
    return found


def _verified(run: Any, layer: str) -> "Verified | None":
    from jdissect.verification import verified

    found = verified.read(run.folder / layer)
    if found is None or not (run.folder / MARK).is_file():
        return None
    own = safe_reading.read_json(run.folder / MARK).get("result_hash")
    return found if found.result_hash == own else None


def _misfit(folder: Any, name: str) -> UserError:
    return UserError(f"{folder / name} does not fit the layer: other units or concepts")


def missing_line(
    missing: Iterable[str], runs: str = "RUN", what: str = "Not computed"
) -> str:
    """Returns one line that says which commands find what is missing; '' for nothing.

    Args:
      missing: those of KINDS that are missing.
      runs: how the commands' argument is shown.
      what: how the line begins.
    """
    names = [KINDS[kind] for kind in KINDS if kind in set(missing)]
    if not names:
        return ""
    told = ", ".join(
        f"{name} (python -m jdissect.{command} {runs})" for name, command in names
    )
    return f"{what}: {told}."
