"""What the pages say and remember, without a page."""

import json
from dataclasses import fields

import pandas as pd
import pytest
from streamlit.web.server.starlette.starlette_app_utils import generate_xsrf_token_string

from lsf.analysis.criteria import CRITERIA
from lsf.analysis.plan import Plan, Predicted, full_plan
from lsf.analysis.settings import AnalysisSettings
from lsf.jobs.spec import RunSpec
from lsf.ui.choice import NEED_WORDS, cost_shares, default_budget
from lsf.ui.downloads import table_csv, table_json
from lsf.ui.forms import help_text
from lsf.ui.panels import amount, duration, size
from lsf.ui.runs import command
from lsf.ui.state import browser_name


def test_a_browser_keeps_its_name_when_its_cookie_is_masked_anew() -> None:
    token, other = b"0123456789abcdef", b"fedcba9876543210"
    names = {browser_name(generate_xsrf_token_string(token, 1700000000)) for _ in range(5)}
    assert len(names) == 1
    assert browser_name(generate_xsrf_token_string(other, 1700000000)) not in names


def test_a_cookie_of_another_shape_still_makes_a_name() -> None:
    assert len(browser_name("something else")) == 12


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.42, "0.4 s"), (12.3, "12 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_read_like_speech(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_sizes_and_amounts_keep_unknown_apart_from_zero() -> None:
    assert (size(None), size(0), size(3_200_000), size(14.1e9)) == ("unknown", "0.0 MB", "3.2 MB", "14.1 GB")
    assert (amount(None), amount(0), amount(394_000), amount(2.9e6)) == ("unknown", "0", "394 k", "2.9 M")


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
    assert "--all" in command(RunSpec("bundled", "lesson:facts", full_plan("bundled", 8)))
