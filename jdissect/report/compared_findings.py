"""Puts formulas, chance and verified labels of several networks beside each other."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from jdissect.analysis.comparison import Comparison, Model
from jdissect.report import findings
from jdissect.report.findings import NOTHING, Findings

_KINDS = ("formulas", "chance", "verified")


@dataclasses.dataclass(frozen=True, eq=False)
class ComparedFindings:
    """What is known of the compared networks beside their counts.

    Attributes:
      of: what is known of each model, by its name.
      kinds: those of `findings.KINDS` that are known of all models and are compared.
      note: one line that says what is missing; '' for nothing.
    """

    of: Mapping[str, Findings]
    kinds: tuple[str, ...]
    note: str = ""


def read(comparison: Comparison) -> ComparedFindings:
    """Reads what is known of the models of a comparison.

    Raises:
      UserError: a file is damaged.
    """
    found = {
        model.name: NOTHING
        if _narrowed(model)
        else findings.read(model.run, model.layer)
        for model in comparison.models
    }
    kinds = tuple(k for k in _KINDS if all(k in one.kinds for one in found.values()))
    if any(_narrowed(model) for model in comparison.models):
        note = "Formulas, chance and labels are compared for equal vocabularies only."
    elif all(model.run.by_itself for model in comparison.models):
        note = ""
    else:
        missing = set(_KINDS) - set(kinds)
        note = findings.missing_line(missing, what="Not known of all networks")
    return ComparedFindings(found, kinds, note)


def _narrowed(model: Model) -> bool:
    """Whether only some concepts of the run are compared."""
    return model.result.concepts != model.run.result(model.layer).concepts


def rows(comparison: Comparison, known: ComparedFindings) -> Iterator[dict[str, Any]]:
    """Yields one row per threshold and model; nothing if nothing is known of all.

    Counts by chance are the mean and the 95 % point over permutations.
    """
    first = comparison.models[0]
    for threshold in comparison.thresholds if known.kinds else ():
        for model in comparison.models:
            found, there = known.of[model.name], model.result.detectors(threshold)
            row: dict[str, Any] = {
                "threshold": threshold,
                "model": model.name,
                "detectors": int(there.sum()),
                "unique_concepts": model.result.unique_concepts(threshold)["total"],
            }
            if "chance" in known.kinds and (chance := found.chance) is not None:
                detectors = chance.detectors(threshold)
                categories = model.result.categories
                concepts = chance.unique_concepts(threshold, categories)["total"]
                row |= {
                    "detectors_above_chance": int((there & chance.found()).sum()),
                    "detectors_by_chance": round(detectors.mean, 3),
                    "detectors_by_chance_high": detectors.high,
                    "unique_concepts_by_chance": round(concepts.mean, 3),
                    "unique_concepts_by_chance_high": concepts.high,
                }
            if "formulas" in known.kinds and (formulas := found.formulas) is not None:
                gained, lost = _changed(known, first, model, threshold)
                row |= {
                    "detectors_by_formula": int((formulas.iou > threshold).sum()),
                    "formulas": len(formulas.unique(threshold)),
                    "formulas_gained": len(gained),
                    "formulas_lost": len(lost),
                }
            if "verified" in known.kinds and (labels := found.verified) is not None:
                share = labels.share(threshold)
                row |= {
                    "judged": share.judged,
                    "verified": share.verified,
                    "verified_share": round(share.share, 4) if share.judged else None,
                }
            yield row


def formula_changes(
    comparison: Comparison, known: ComparedFindings
) -> Iterator[dict[str, Any]]:
    """Yields one row per threshold, pair of models and formula that only one has."""
    if "formulas" not in known.kinds:
        return
    best = {name: formula_levels(found) for name, found in known.of.items()}
    for threshold in comparison.thresholds:
        for number, first in enumerate(comparison.models):
            for second in comparison.models[number + 1 :]:
                gained, lost = _changed(known, first, second, threshold)
                for one, other, formulas in (
                    (second, first, gained),
                    (first, second, lost),
                ):
                    for formula in formulas:
                        yield {
                            "threshold": threshold,
                            "detected_by": one.name,
                            "not_by": other.name,
                            "formula": formula,
                            "iou": best[one.name][formula],
                            "iou_there": best[other.name].get(formula, 0.0),
                        }


def _changed(known: ComparedFindings, first: Model, second: Model, threshold: float):
    from jdissect.formulas import stored

    before, after = (known.of[model.name].formulas for model in (first, second))
    assert before is not None and after is not None  # as it is known of all
    return stored.changed(before, after, threshold)


def formula_levels(found: Findings) -> dict[str, float]:
    """Returns {formula: IoU of the best unit for it}, by IoU descending."""
    formulas = found.formulas
    assert formulas is not None
    best: dict[str, float] = {}
    for formula, iou in zip(formulas.formulas, formulas.iou.tolist(), strict=True):
        if formula:
            best[formula] = max(iou, best.get(formula, 0.0))
    return dict(sorted(best.items(), key=lambda item: -item[1]))


def best_formulas(known: ComparedFindings, name: str) -> dict[str, float]:
    """Returns {formula: IoU of a model's best unit for it}; {} if not compared."""
    return formula_levels(known.of[name]) if "formulas" in known.kinds else {}


def table(comparison: Comparison, known: ComparedFindings) -> list[list[str]]:
    """Returns the rows as text, the heading first; [] if nothing is known of all."""
    found = list(rows(comparison, known))
    if not found:
        return []
    heading, several = ["IoU >", "network", "detectors"], len(comparison.models) > 1
    if "chance" in known.kinds:
        heading += ["by chance", "above chance", "unique concepts", "by chance"]
    if "formulas" in known.kinds:
        heading += ["by formula", "formulas"] + ["gained", "lost"] * several
    if "verified" in known.kinds:
        heading += ["verified"]
    lines, first = [heading], comparison.models[0].name
    for row in found:
        line = [
            f"{row['threshold']:g}" if row["model"] == first else "",
            row["model"],
            str(row["detectors"]),
        ]
        if "chance" in known.kinds:
            line += [
                _by_chance(row, "detectors"),
                str(row["detectors_above_chance"]),
                str(row["unique_concepts"]),
                _by_chance(row, "unique_concepts"),
            ]
        if "formulas" in known.kinds:
            line += [str(row["detectors_by_formula"]), str(row["formulas"])]
            if several:
                base = row["model"] == first
                line += [
                    "" if base else f"+{row['formulas_gained']}",
                    "" if base else f"-{row['formulas_lost']}",
                ]
        if "verified" in known.kinds:
            line.append(
                f"{row['verified_share']:.0%} of {row['judged']}"
                if row["judged"]
                else "-"
            )
        lines.append(line)
    return lines


def _by_chance(row: Mapping[str, Any], what: str) -> str:
    return f"{row[f'{what}_by_chance']:.1f} (95 %: {row[f'{what}_by_chance_high']})"
