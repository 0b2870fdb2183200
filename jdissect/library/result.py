"""The result of a layer as a notebook shows it: tables, figures, pictures, a page."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from jdissect.analysis import concept_sets, uncertainty
from jdissect.analysis.concept_sets import ConceptSets
from jdissect.base import paths, replacing, safe_reading
from jdissect.base.atomic_files import write_whole
from jdissect.base.errors import UserError
from jdissect.library import frames, html
from jdissect.library.pictures import RunPictures
from jdissect.report.figures import detector_pictures, stacked_bars
from jdissect.report.findings import NOTHING, Findings
from jdissect.report.findings import read as read_findings
from jdissect.report.pages import page
from jdissect.report.probe_images import read_pixels
from jdissect.report.top_masks import top_masks
from jdissect.results import layer_result, load_layer
from jdissect.results.finished_run import StoredRun, open_run
from jdissect.results.run_directory import MARK

if TYPE_CHECKING:
    import pandas
    import xarray


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result(layer_result.Result):
    """One layer's units against all concepts, to look at in a notebook.

    In a notebook a result shows its counts, and its best units with the images that
    they respond to most. The other attributes are those of `layer_result.Result`.

    Attributes:
      pictures: the images by number, as `data.source.Readable`; None for none.
      findings: formulas, chance level, verified labels and scores of activations that
        other commands found for the run, see `report.findings`.
    """

    pictures: Any = None
    findings: Findings = NOTHING

    def to_pandas(self, more: bool = False) -> "pandas.DataFrame":
        """Returns one row per unit: unit, concept, category, iou, threshold.

        Concept and category are missing for a unit that never fires or overlaps no
        concept; its iou is 0. `threshold` is T_k: the unit fires above it.

        Args:
          more: also the scores of each unit's concept, a column each (see `scores`),
            and what is in `findings`: formula, p, q, concept_set, verified, auc.

        Raises:
          UserError: pandas is not installed.
        """
        if more:
            return frames.with_more(self, self._rows(), self.findings)
        return frames.to_pandas(self, self._rows())

    def to_xarray(self) -> "xarray.Dataset":
        """Returns the counts by unit and concept, with names as coordinates.

        Raises:
          UserError: xarray is not installed.
        """
        return frames.to_xarray(self, self._rows())

    def concept_sets(self) -> ConceptSets | None:
        """Returns for each unit the concepts that cannot be told from its best one.

        Returns:
          `sets.of(unit)` are columns of `concepts`, the best first; None if counts by
          block were not kept, or images are in too few of the blocks.
        """
        return concept_sets.concept_sets(self)

    def plot(self, title: str = "") -> Figure:
        """Draws unique concepts by category, a stacked bar per IoU threshold.

        Returns:
          the figure, which a notebook shows; `savefig("concepts.png")` writes it.
        """
        name = self.model or self.layer or "network"
        panels = {
            threshold: [stacked_bars.Bar(name, self.unique_concepts(threshold))]
            for threshold in self.iou_thresholds
        }
        return stacked_bars.concepts_by_category(panels, title=title)

    def show(
        self, unit: int | np.integer | str | Sequence[int | str] | np.ndarray
    ) -> Figure:
        """Draws the images that units respond to most, dark where they do not fire.

        Args:
          unit: name of a unit, such as 12 or '12-' (see `unit_names`), or several.

        Returns:
          the figure, which a notebook shows; of one unit, with its formula and p-value
          where they are known.

        Raises:
          UserError: there is no such unit, or there are no pictures.
        """
        given: Any = unit
        if not isinstance(unit, Sequence | np.ndarray) or isinstance(unit, str):
            given = [unit]
        units = [self._checked(one) for one in given]
        if not units:
            raise UserError("unit is empty; name a unit")
        strips: dict[str, list[detector_pictures.Strip]] = {}
        for one, masks in zip(units, top_masks(self, units), strict=True):
            detector = detector_pictures.of_unit(self, one)
            pictures = [self._picture(int(index)) for index in self.top_image[one]]
            strips.setdefault(detector.category, []).append(
                detector_pictures.Strip(detector, pictures, masks)
            )
        every = [
            picture for row in strips.values() for s in row for picture in s.pictures
        ]
        if all(picture is None for picture in every):
            raise UserError(f"there are no pictures to show{self._why()}")
        title = html.known_of(self, units[0], self.findings) if len(units) == 1 else ""
        return detector_pictures.draw(strips, title)

    def report(self, path: str | os.PathLike) -> paths.Path:
        """Writes a page with all units, their images and masks; returns its path.

        The page needs no network access and no other file.

        Raises:
          UserError, OSError: the page cannot be written.
        """
        path = paths.from_user(path)
        name = self.layer or "layer"
        names = () if self.pictures is None else self.pictures.names
        facts = [
            ("network", self.model),
            ("images", f"{self.images:,}"),
            ("quantile", f"{self.quantile:g}"),
            ("tail", self.tail if self.tail != "upper" else ""),
        ]
        estimates = uncertainty.estimates(self) if self.blocks is not None else None
        content = page.render(
            {name: self},
            {name: estimates},
            self.pictures,
            heading=name,
            facts=[(what, value) for what, value in facts if value],
            names=[names[index] for index in range(len(names))],
            findings={name: self.findings},
        )
        write_whole(path, content)
        return path

    def _repr_html_(self) -> str:
        return str(html.result_html(self, self.pictures, self.findings))

    def _checked(self, unit: Any) -> int:
        names = [str(name) for name in self.unit_names]
        if not isinstance(unit, int | np.integer | str) or str(unit) not in names:
            raise UserError(
                f"there is no unit {unit!r:.40}; units are {names[0]} to {names[-1]}"
            )
        return names.index(str(unit))

    def _rows(self) -> list[tuple]:
        return list(self._units())[1:]

    def _picture(self, index: int):
        return None if self.pictures is None else read_pixels(self.pictures, index)

    def _why(self) -> str:
        reason = getattr(self.pictures, "reason", "")
        return f": {reason}" if reason else ""


def with_pictures(
    result: layer_result.Result, pictures: Any, findings: Findings = NOTHING
) -> Result:
    """Returns a result with its pictures and what else is known of it."""
    fields: dict[str, Any] = {
        field.name: getattr(result, field.name)
        for field in dataclasses.fields(layer_result.Result)
    }
    return Result(**fields, pictures=pictures, findings=findings)


def load(
    folder: str | os.PathLike, data_path: str | os.PathLike = ""
) -> Result | dict[str, Result]:
    """Loads a run, one of its layers, or a result that `Result.save` wrote.

    Results of a run show its images where they still exist with the same content.

    Args:
      folder: a run directory, the folder of one of its layers, or of a saved result.
      data_path: folder of the images, in place of the one in the run's config.

    Returns:
      {layer: result} for a run directory, else the result.

    Raises:
      UserError: the folder or a file is missing, unreadable or inconsistent.
    """
    place = replacing.current(paths.from_user(folder), MARK)
    if _is_run(place):
        whole = open_run(place)
        images = RunPictures(whole, os.fspath(data_path))
        return {
            n: with_pictures(whole.result(n), images, read_findings(whole, n))
            for n in whole.layers
        }
    result = load_layer.load(folder)
    found = replacing.find(place, MARK, of=MARK)
    above = (found if paths.is_remote(found) else found.resolve()).parent
    run: StoredRun | None = None
    pictures: Any = None
    with contextlib.suppress(UserError):  # an unfinished run's layer has none
        if _is_run(above):
            run = open_run(above)
            pictures = RunPictures(run, os.fspath(data_path))
    if run is None or found.name not in run.layers:
        return with_pictures(result, pictures)
    return with_pictures(result, pictures, read_findings(run, found.name))


def _is_run(folder: paths.Path) -> bool:
    summary = folder / MARK
    return summary.is_file() and "format_version" in safe_reading.read_json(summary)
