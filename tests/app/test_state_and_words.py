"""What the pages say and remember, without a page."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.web.server.starlette.starlette_app_utils import generate_xsrf_token_string

from lsf.app.blocks_by_methods import how_words
from lsf.app.browser import name_of
from lsf.app.choose import NEED_WORDS, default_budget
from lsf.app.panels import amount, help_text, size, table_csv, table_json
from lsf.app.run_store import how_many
from lsf.app.runs import belong_together, command, course_table, labels, proof_table, rate_words, unmoved
from lsf.app.state import Session
from lsf.app.tower import LACKED, REPLAYED, measured_tower
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import AnalysisSettings
from lsf.models.info import LABEL, model_label
from lsf.plans.cost import cost_shares
from lsf.plans.plan import Plan, Predicted, full_plan
from lsf.progress import duration
from lsf.runs.controls import control_spec
from lsf.runs.result import Proof, RunResult, RunState
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run
from tests.criteria.factory import analysis_of


def test_a_browser_keeps_its_name_when_its_cookie_is_masked_anew() -> None:
    token, other = b"0123456789abcdef", b"fedcba9876543210"
    names = {name_of(generate_xsrf_token_string(token, 1700000000)) for _ in range(5)}
    assert len(names) == 1
    assert name_of(generate_xsrf_token_string(other, 1700000000)) not in names


def test_a_cookie_of_another_shape_still_makes_a_name() -> None:
    assert len(name_of("something else")) == 64


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.42, "0.4 s"), (12.3, "12 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_read_like_speech(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_sizes_and_amounts_keep_unknown_apart_from_zero() -> None:
    assert (size(None), size(0), size(3_200_000), size(14.1e9)) == ("unknown", "0.0 MB", "3.2 MB", "14.1 GB")
    assert (amount(None), amount(0), amount(394_000), amount(2.9e6)) == ("unknown", "0", "394 k", "2.9 M")
    assert (amount(999_400), amount(999_600), amount(999.7e6)) == ("999 k", "1 M", "1 B")
    assert (size(800), size(12_345), size(999.96e6)) == ("0.8 kB", "12.3 kB", "1.0 GB")


def test_help_carries_meaning_range_and_default() -> None:
    (batch_size,) = [item for item in fields(AnalysisSettings) if item.name == "batch_size"]
    assert help_text(batch_size) == "Examples per forward pass (1 to 65536); default 16."


def test_every_criterion_says_in_words_what_it_needs() -> None:
    assert {entry.needs for entry in CRITERIA.values()} <= set(NEED_WORDS)


def test_tables_leave_unknown_cells_empty_in_csv_and_null_in_json() -> None:
    table = pd.DataFrame({"state": [0, 1], "place": pd.array([None, 3], dtype="Int64"), "share": [float("nan"), 0.5]})
    assert table_csv(table) == "state,place,share\n0,,\n1,3,0.5\n"
    rows = [{"state": 0, "place": None, "share": None}, {"state": 1, "place": 3, "share": 0.5}]
    assert json.loads(table_json(table)) == rows


def test_a_quarter_of_the_blocks_is_offered_at_first() -> None:
    assert [default_budget(n) for n in (1, 2, 8, 32)] == [1, 1, 2, 8]


def test_shares_of_what_is_unknown_are_unknown() -> None:
    shares = cost_shares(Predicted(trainable_params=25), Predicted(trainable_params=100, flops_ratio=1.0))
    assert shares == {"parameters": 0.25, "compute": None, "memory": None}


def test_the_command_of_a_run_repeats_its_settings() -> None:
    plan = Plan("bundled", 8, (3, 5, 6))
    spec = RunSpec("my model", "lesson:facts", plan, steps=60, learning_rate=None, completion_template=" {answer}")
    line = command(spec)
    assert "--blocks 3,5-6" in line
    assert "--learning-rate auto" in line
    assert "'my model'" in line
    assert "--completion-template ' {answer}'" in line
    assert "--option" not in line
    beside = Plan("bundled", 8, (), final_norm=True, modules=("model.connector",))
    assert "--blocks none --modules final_norm,model.connector" in command(RunSpec("bundled", "lesson:facts", beside))
    lora = RunSpec("bundled", "lesson:facts", plan, method="lora", options={"r": 4, "alpha": 8.0})
    assert "--option r=4 --option alpha=8.0" in command(lora)
    assert "--all" in command(RunSpec("bundled", "lesson:facts", full_plan("bundled", 8)))


def run_of(name: str, role: str = "choice", **changes: Any) -> Run:
    plan = full_plan("bundled", 8) if role == "full" else Plan("bundled", 8, (3,))
    spec = RunSpec("bundled", "lesson:facts", plan, role=role, **changes)
    return Run(Path(name), name, spec, RunState.QUEUED, None, None)


def test_full_fine_tuning_belongs_to_a_choice_of_any_method_and_other_methods_do_not() -> None:
    lora = run_of("r1", method="lora", options={"r": 4})
    others = [run_of("r2", "full"), run_of("r3", "first", method="lora", options={"r": 4}), run_of("r4"), run_of("r5")]
    assert [run.id for run in belong_together([lora, *others], "r1")] == ["r1", "r2", "r3"]
    assert [run.id for run in belong_together([lora, *others], "r4")] == ["r4", "r2"]


def test_controls_belong_to_a_choice_whose_rate_was_tried() -> None:
    tried = run_of("r1")
    spec = replace(tried.spec, plan=replace(tried.spec.plan, rates={"full": 0.002})) if tried.spec else None
    assert spec is not None
    controls = [control_spec(spec, role) for role in ("full", "random")]
    runs = [replace(run_of(f"r{place}"), spec=one) for place, one in enumerate([spec, *controls], 1)]
    assert [run.id for run in belong_together(runs, "r1")] == ["r1", "r2", "r3"]


def test_lora_on_all_blocks_belongs_to_a_choice_of_any_method() -> None:
    everywhere = run_of("r2", "full", method="lora", options={"r": 4})
    assert [run.id for run in belong_together([run_of("r1"), everywhere], "r1")] == ["r1", "r2"]


def test_a_run_is_named_by_its_role_its_blocks_and_its_method_where_that_is_another() -> None:
    runs = [
        run_of("r-aaaa"),
        run_of("r-bbbb"),
        run_of("r-cccc", method="lora", options={"r": 4}),
        run_of("x", "middle"),
        run_of("r-dddd", steps=7),
        run_of("r-eeee", "random"),
    ]
    names = [
        "choice: block 3, 100 steps · aaaa",
        "choice: block 3, 100 steps · bbbb",
        "choice: block 3, lora (r=4)",
        "middle block 3",
        "choice: block 3, 7 steps",
        "random block 3",
    ]
    assert labels(runs) == names


def test_one_run_is_not_told_as_all_of_them() -> None:
    assert (how_many(1), how_many(2)) == ("The one run", "All 2 runs")


def test_tuned_tensors_that_did_not_move_are_named() -> None:
    proof = Proof(5, "ab" * 32, True, 12, 2, tuple(f"block.{n}" for n in range(10)), 10, 10)
    run, waits = run_of("r1"), run_of("r2", "last")
    ended = replace(run, result=RunResult(RunState.SUCCEEDED, proof=proof))
    (sentence,) = unmoved([ended, waits])
    assert sentence.startswith("choice: block 3: did not move: block.0, block.1")
    assert sentence.endswith("block.7 and 2 more.")
    assert proof_table([ended, waits])["hash of the frozen"].tolist() == ["abababababab"]


def test_the_course_of_a_run_tells_cache_micro_batch_and_where_it_was_resumed() -> None:
    cache = {"kind": "memory", "reason": "It fits.", "depth": 3, "bytes": 2_000_000, "served": 40, "computed": 10}
    with_cache = RunResult(RunState.SUCCEEDED, cache=cache, micro_batch=4, resumed_at=20)
    without = RunResult(RunState.FAILED)
    table = course_table(
        [replace(run_of("r1"), result=with_cache), replace(run_of("r2"), result=without), run_of("r3")]
    )
    told = ["prefix cache", "examples served", "cache size", "micro-batch", "resumed at step"]
    assert table.loc[0, told].tolist() == ["memory", 40, "2.0 MB", 4, 20]
    assert table.loc[1].drop("run").isna().all()


def test_a_rate_says_where_it_came_from_and_the_blocks_it_was_searched_on() -> None:
    found = RunResult(RunState.SUCCEEDED, rate_from="search of r1", searched_on="block 7")
    assert rate_words(found) == "search of r1, on block 7"
    assert rate_words(replace(found, searched_on=None)) == "search of r1"
    assert rate_words(RunResult(RunState.FAILED)) is None


def test_methods_are_told_without_the_names_of_their_settings() -> None:
    told = {how: how_words(how) for how in ("full", "adapter (kind=pfeiffer)", "pafi (scope=per_tensor)", "lora (r=4)")}
    assert list(told.values()) == ["All weights", "Adapters (pfeiffer)", "PaFi (per tensor)", "LoRA (r 4)"]


def test_only_the_model_that_is_offered_goes_by_its_full_name() -> None:
    asked = ("smollm2", "./smollm2", "/runs/smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", "bundled")
    assert [model_label(one) for one in asked] == [LABEL, "smollm2", "smollm2", LABEL, "bundled"]


def test_in_a_replay_the_tower_does_not_say_that_the_analysis_lacks_what_chose() -> None:
    analysis = analysis_of([0.1, 0.5])
    here = Session("me", plan=Plan("toy", 2, (1,), criterion="alignment"))
    assert measured_tower(here, analysis)[1][0] == LACKED.format("Gradient alignment")
    here.moment = analysis
    assert measured_tower(here, analysis)[1][0] == REPLAYED.format("Gradient alignment")
