"""What is said of paths after tuning that are laid over those before."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lsf.app.paths import _is_of, where_apart
from lsf.app.work import Analysed, Request
from lsf.criteria.result import Analysis, AnalysisSettings
from lsf.plans.plan import Plan, full_plan
from lsf.runs.result import RunResult, RunState
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run, create_run, load_run
from tests.figures.conftest import analysis as analysis


@pytest.mark.parametrize(
    ("beside", "tied", "reading", "told"),
    [
        ({}, True, "lens", ", apart from the lowest tuned block on."),
        ({"head": True}, False, "lens", ", apart from the lowest tuned block on."),
        ({"head": True}, True, "lens", "; the embedding was tuned too, so that every state can be elsewhere."),
        ({"embedding": True}, False, "raw", "; the embedding was tuned too, so that every state can be elsewhere."),
        ({"final_norm": True}, False, "lens", "; the final norm was tuned too, so that every state can be elsewhere."),
        ({"final_norm": True}, False, "raw", ", apart from the lowest tuned block on."),
        ({"blocks": (), "head": True}, False, "lens", ", which left every state where it was."),
    ],
)
def test_where_paths_part_depends_on_what_is_tuned_beside_the_blocks(
    analysis: Analysis, tmp_path: Path, beside: dict[str, Any], tied: bool, reading: str, told: str
) -> None:
    found = replace(
        analysis,
        model=replace(analysis.model, tied_head=tied),
        data=replace(analysis.data, reading=reading),
    )
    plan = replace(Plan("made-up", 3, (1,), head=True), **{"head": False, **beside})
    assert where_apart(run_of(plan, tmp_path), found) == f"Green squares: the same after tuning{told}"


def test_a_whole_model_moves_every_state(analysis: Analysis, tmp_path: Path) -> None:
    assert where_apart(run_of(full_plan("made-up", 3), tmp_path), analysis) == (
        "Green squares: the same after tuning; the embedding and the final norm were tuned too, so that every state "
        "can be elsewhere."
    )


@pytest.mark.parametrize(
    ("made", "read", "same"),
    [
        ("raw", "raw", True), ("raw", None, True), ("chat, by the model's template", "raw", False),
        ("raw", "chat, by the model's template", False), ("raw (9), chat, by the model's template (3)", "raw", True),
        ("chat, by the model's template", "chat, by the model's template", True),
    ],
)  # fmt: skip
def test_a_run_on_other_texts_of_the_same_rows_is_not_laid_over(
    analysis: Analysis, tmp_path: Path, made: str, read: str | None, same: bool
) -> None:
    data = replace(analysis.data, fingerprint="f", rendering=read)
    found = Analysed(Request(settings=AnalysisSettings()), replace(analysis, weights="w", data=data))
    result = RunResult(RunState.SUCCEEDED, stored_bytes=1, weights="w", data_fingerprint="f", rendering=made)
    assert _is_of(replace(run_of(Plan("made-up", 3, (1,)), tmp_path), result=result), found) == same


def run_of(plan: Plan, folder: Path) -> Run:
    return load_run(create_run(folder, RunSpec("bundled", "lesson:facts", plan)))
