"""Results as a notebook shows them: records of the rooms with tables, pictures and the verdict."""

import sys
import tempfile
import webbrowser
from dataclasses import dataclass
from html import escape
from numbers import Integral
from pathlib import Path
from typing import Any

from lsf.criteria import result as records
from lsf.criteria.registry import CRITERIA
from lsf.errors import PlanError
from lsf.evidence import sweep as sweeps
from lsf.evidence.standing import recommended_here
from lsf.figures.report import analysis_page
from lsf.plans.plan import Plan
from lsf.plans.policies import EVENLY_SPACED, make_plan, spaced_plan
from lsf.runs import comparison as tables
from lsf.runs import store
from lsf.runs.formats import render, to_frame
from lsf.runs.verdict import verdicts
from lsf.wording import counted


def whole_budget(blocks: Any, n_blocks: int) -> int:
    """Return a number of blocks as Python has it, whatever a notebook has it as.

    Raises:
        PlanError: it is no whole number.
    """
    if not isinstance(blocks, Integral):
        raise PlanError(f"The budget is {blocks!r}; a whole number of blocks was expected, 1 to {n_blocks}.")
    return int(blocks)


class _Record:
    """A record of a lower room with what a notebook does with it; equal to any record of the same fields."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self).__bases__[1]) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))


@dataclass(frozen=True, eq=False, repr=False)
class Analysis(_Record, records.Analysis):
    """One analysis, with what a notebook does with it: L+1 states, L blocks, scores per block.

    Fields and units are those of `lsf.criteria.result.Analysis`, which is also analysis.json.
    """

    def recommend(self, blocks: int, criterion: str | None = None, policy: str = "window") -> Plan:
        """Return a plan for so many blocks; `plan.reasons` says why each was chosen.

        Args:
            blocks: how many, 1 to L.
            criterion: one that was scored; None takes what is recommended for this model.
            policy: from scores to blocks, where a criterion is given: top_k, window or suffix. `evenly_spaced` needs
                none.

        Raises:
            PlanError: so many blocks there are not, or the criterion was not measured.

        Example:
            >>> import lsf
            >>> plan = lsf.analyze(lsf.load("bundled"), "lesson:facts", limit=8).recommend(blocks=2)
            >>> plan.n_blocks, len(plan.blocks), sorted(plan.reasons) == [str(block) for block in plan.blocks]
            (8, 2, True)
        """
        count = whole_budget(blocks, self.model.n_blocks)
        if criterion is None and policy == EVENLY_SPACED:
            return spaced_plan(self, count)
        return recommended_here(self, count) if criterion is None else make_plan(self, criterion, policy, count)

    def show(self, plan: Plan | None = None) -> None:
        """Draw every picture of it, with a plan's blocks marked: in the notebook's cell, else in a browser tab.

        The page is 5 MB, since it opens offline.
        """
        page = analysis_page(self, plan)
        shell = sys.modules.get("IPython")
        if shell is not None and shell.get_ipython() is not None:
            shell.display.display(shell.display.HTML(_framed(page)))
            return
        with tempfile.NamedTemporaryFile("w", suffix=".html", delete=False, encoding="utf-8") as file:
            file.write(page)
        webbrowser.open(Path(file.name).as_uri())

    def _repr_html_(self) -> str:
        """Return the scores of every block in a table, each with a bar between the least and the greatest."""
        names = [CRITERIA[name].label for name in self.criteria]
        columns = [[*map(str, range(self.model.n_blocks))], *(_bars(self.scores(name)) for name in self.criteria)]
        head = "".join(f"<th>{escape(name)}</th>" for name in ("block", *names))
        rows = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in zip(*columns, strict=True))
        return f"<p>{escape(self._said())}</p><table><tr>{head}</tr>{rows}</table>"

    def __repr__(self) -> str:
        """Return the table as a plain Python session shows it."""
        import pandas as pd  # noqa: PLC0415 - a third of a second to import

        scores = {CRITERIA[name].label: self.scores(name) for name in self.criteria}
        table = pd.DataFrame(scores, index=pd.RangeIndex(self.model.n_blocks, name="block"), dtype=float)
        return f"{self._said()}\n{table.to_string(float_format='{:.4g}'.format, na_rep='')}"

    def _said(self) -> str:
        return f"{self.model.name} on {counted(self.data.n_examples, 'example')} of {self.data.name}; .show() draws it."


def _bars(scores: Any) -> list[tuple[str, float]]:
    """Return each score as text with its share of the way from the least to the greatest, in [0, 1]."""
    known = [score for score in scores if score is not None]
    low, span = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    return [("", 0.0) if score is None else (f"{score:.4g}", (score - low) / span if span else 0.0) for score in scores]


def _cell(value: str | tuple[str, float]) -> str:
    if isinstance(value, str):
        return f"<td>{value}</td>"
    text, share = value
    return f"<td style='background:linear-gradient(90deg,#0072B255 {share:.0%},transparent {share:.0%})'>{text}</td>"


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(_Record, tables.Comparison):
    """Runs side by side: a row each, with ratios to the full run, and what makes them less comparable."""

    def _repr_html_(self) -> str:
        found = "".join(f"<p><b>{escape(one.sentence)}</b> {escape(one.onward)}</p>" for one in verdicts(self))
        said = "".join(f"<p>{escape(words)}</p>" for words in self.warnings)
        return found + to_frame(self).to_html(index=False, na_rep="") + said

    def __repr__(self) -> str:
        """Return the table as a plain Python session shows it."""
        return render(self).rstrip("\n")


@dataclass(frozen=True, eq=False, repr=False)
class Run(_Record, store.Run):
    """One run's folder: `.spec` is what was asked, `.result` what it came to, `.state` where it stands."""

    def _repr_html_(self) -> str:
        return Comparison(**vars(tables.compare([self])))._repr_html_()

    def __repr__(self) -> str:
        """Return the table as a plain Python session shows it."""
        return f"{self.folder}\n{Comparison(**vars(tables.compare([self])))}"


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(_Record, sweeps.Sweep):
    """Every plan of a family, tuned from the same start under several seeds, and tested: a cell each."""

    def _repr_html_(self) -> str:
        return self._frame().to_html(index=False, na_rep="")

    def __repr__(self) -> str:
        """Return the table as a plain Python session shows it."""
        return self._frame().to_string(index=False, na_rep="")

    def _frame(self) -> Any:
        import pandas as pd  # noqa: PLC0415 - a third of a second to import

        measured = ({} if cell.after is None else vars(cell.after) for cell in self.cells)
        named = ({"plan": cell.plan, "seed": cell.seed} for cell in self.cells)
        return pd.DataFrame([{**name, **found} for name, found in zip(named, measured, strict=True)])


def _framed(page: str) -> str:
    """Return a page that stands alone as part of another one: its script and style stay inside."""
    return f'<div><iframe srcdoc="{escape(page)}" width="100%" height="720" style="border:0"></iframe></div>'
