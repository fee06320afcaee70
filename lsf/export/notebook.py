"""A Jupyter notebook that holds an analysis and redraws its figures."""

import base64
import json
import zlib
from typing import Any

import lsf
from lsf.criteria.agreement import stability
from lsf.criteria.result import Analysis
from lsf.errors import BadInputError
from lsf.files import finite
from lsf.plans.policies import RECOMMENDED
from lsf.wording import counted

NBFORMAT, NBFORMAT_MINOR = 4, 5
LINE = 118
"""Characters per line of the packed analysis."""

IMPORTS = """
from lsf.export.notebook import unpack
from lsf.figures.criteria import draw_agreement
from lsf.figures.criteria import draw_criteria, measured_scores
from lsf.figures.deviation import draw_deviation, draw_scores
from lsf.figures.criteria import draw_growth
from lsf.figures.lens import draw_lens, lens_table
from lsf.figures.lens import draw_targets
from lsf.figures.palette import LIGHT, themed
from lsf.figures.trajectories import draw_paths


def show(picture):
    print(picture.alt)
    return themed(picture.figure, LIGHT)
"""
READ = """
# The analysis itself, packed, so that this notebook needs no other file. To draw another one instead:
# from pathlib import Path
# from lsf.criteria.result import Analysis
# analysis = Analysis.load(Path("analysis.json"))
analysis = unpack(PACKED)
analysis.model, analysis.data
"""


def pack(analysis: Analysis) -> str:
    """Return an analysis as text for a program: its JSON, compressed, in base 64."""
    plain = json.dumps(finite(analysis.to_json()), separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(plain.encode(), 9)).decode()


def unpack(packed: str) -> Analysis:
    """Return the analysis that `pack` made text of; line ends do not matter.

    Raises:
        BadInputError: the text is cut off or was changed.
    """
    try:
        plain = json.loads(zlib.decompress(base64.b64decode("".join(packed.split()), validate=True)))
    except (ValueError, zlib.error) as error:
        raise BadInputError(f"The packed analysis of this notebook is damaged ({error}); export it again.") from None
    return Analysis.from_json(plain, "the packed analysis")


def analysis_notebook(analysis: Analysis) -> dict[str, Any]:
    """Return a notebook that rebuilds every figure of an analysis; it needs lsf installed, and no other file.

    Returns:
        Plain JSON values of notebook format 4.5, without outputs.
    """
    model, data = analysis.model, analysis.data
    head = (
        f"# {model.name} on {data.name}\n\n{model.family}, {counted(model.n_blocks, 'block')}; "
        f"{counted(data.n_examples, 'example')} ({data.split}), {counted(data.n_positions, 'position')}. Made by LSF "
        f"{lsf.__version__}; the code below draws each figure from the analysis packed into this notebook, with the "
        "functions of the `lsf` package."
    )
    sources = [("markdown", head), ("code", IMPORTS), ("code", _packed(analysis) + READ), *_figures(analysis)]
    return {
        "cells": [_cell(kind, source, place) for place, (kind, source) in enumerate(sources)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": NBFORMAT,
        "nbformat_minor": NBFORMAT_MINOR,
    }


def _packed(analysis: Analysis) -> str:
    text = pack(analysis)
    lines = "\n".join(text[start : start + LINE] for start in range(0, len(text), LINE))
    return f'PACKED = """\n{lines}\n"""\n'


def _figures(analysis: Analysis) -> list[tuple[str, str]]:
    """Return the cells that draw, those first that the app shows first."""
    cells: list[tuple[str, str]] = []
    paths = analysis.trajectories
    if paths is not None:
        cells.append(("markdown", "## Paths: factual and virtual transition in one common PCA"))
        cells += [("code", "show(draw_paths(analysis))"), ("code", "show(draw_paths(analysis, dimensions=3))")]
    cells += [("markdown", "## Deviation per state"), ("code", "show(draw_deviation(analysis))")]
    if paths is not None and paths.examples:
        cells.append(("markdown", "## Logit lens"))
        cells.append(("code", "show(draw_targets(analysis.trajectories.examples))"))
        cells.append(("code", "show(draw_lens(analysis.trajectories.examples[0]))"))
        cells.append(("code", "lens_table(analysis)"))
    return cells + _criteria(analysis)


def _criteria(analysis: Analysis) -> list[tuple[str, str]]:
    if not analysis.criteria:
        return []
    name = analysis.criteria[0]
    bars = f"show(draw_scores(analysis.scores({name!r}), chosen=(), label={name!r}, unit=''))"
    cells = [
        ("markdown", "## Criteria: one score per block"),
        ("code", bars),
        ("code", f"show(draw_criteria(measured_scores(analysis), chosen={name!r}))"),
        ("code", "show(draw_agreement(measured_scores(analysis), method='spearman'))"),
    ]
    grown = next((one for one in (*RECOMMENDED, *analysis.criteria) if stability(analysis, one)), None)
    if grown is not None:
        cells += [("markdown", "## How many examples suffice"), ("code", f"show(draw_growth(analysis, {grown!r}))")]
    return cells


def _cell(kind: str, source: str, place: int) -> dict[str, Any]:
    lines = source.strip().splitlines(keepends=True)
    cell: dict[str, Any] = {"id": f"cell-{place}", "cell_type": kind, "metadata": {}, "source": lines}
    return cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []}
