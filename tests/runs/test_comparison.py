import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lsf.data.report import Floor, Prior
from lsf.errors import UnknownNameError
from lsf.plans.plan import Plan, Predicted, full_plan
from lsf.runs.comparison import compare, non_dominated, to_row
from lsf.runs.formats import render, to_frame
from lsf.runs.result import GeneralData, Metrics, Proof, RunResult, RunState
from lsf.runs.seeds import summarise
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run
from lsf.runs.verdict import EXACT, LOSS, told_by

GOOD = Proof(5, "ab", True, 2, 2, (), 10, 10)


def make(name, plan=(7,), exact=0.8, loss=1.0, seconds=4.0, params=100, seed=0, role="choice", **changes) -> Any:
    """A succeeded run with round numbers; `changes` go to its spec."""
    spec = RunSpec("m", "d", full_plan("m", 8) if plan == "full" else Plan("m", 8, plan), role=role, seed=seed)
    result = RunResult(
        RunState.SUCCEEDED,
        before=Metrics(3.0, 20.0, 0.3, 0.1, 1.0, 50),
        after=Metrics(loss, 2.7, 0.9, exact, 1.25, 50),
        trainable_params=params,
        steps=100,
        tokens=5000,
        seconds=seconds,
        step_seconds_median=seconds / 100,
        peak_memory_bytes=params * 16,
        proof=GOOD,
        learning_rate=1e-3,
        seed=seed,
        data_fingerprint="f",
        environment={"device": "cpu"},
    )
    return Run(Path(name), name, replace(spec, **changes), RunState.SUCCEEDED, result, None)


FULL = make("full", "full", exact=1.0, loss=0.5, seconds=10.0, params=800, role="full")


def test_ratios_are_to_the_full_run_by_hand():
    row = compare([make("some"), FULL]).rows[0]
    assert (row.x_params, row.x_memory, row.x_quality) == (100 / 800, 0.125, 0.8)
    assert row.x_time == pytest.approx(4.0 / 10.0)
    assert row.x_gain == (3.0 - 1.0) / (3.0 - 0.5)
    assert row.forgetting == 0.25
    assert (row.exact_match_before, row.exact_match_after, row.loss_after) == (0.1, 0.8, 1.0)
    assert (row.plan, row.blocks, row.method, row.state) == ("block 7", "7", "full", "succeeded")


def test_memory_that_a_process_cannot_tell_is_that_counted_from_tensors():
    def grown(run: Any, count: int, counted: int, **expected: Any) -> Any:
        predicted = Predicted(memory_bytes=counted, **expected)
        source = {"peak_memory_bytes": count, "peak_memory_source": "rss", "predicted": predicted}
        return replace(run, result=replace(run.result, **source))

    tried = {"phases": {"steps": 1.0}}
    small = grown(make("some"), 50_000_000, 5_000_000, **tried)  # the process grew by what others did
    row = to_row(small)
    assert (row.peak_memory_bytes, row.memory_grown) == (5_000_000, 50_000_000)
    whole = grown(FULL, 90_000_000, 40_000_000, **tried)
    assert compare([small, whole]).rows[0].x_memory == 5 / 40
    large = grown(FULL, 300_000_000, 200_000_000, **tried)
    assert (to_row(large).peak_memory_bytes, to_row(large).memory_grown) == (300_000_000, None)
    assert compare([small, large]).rows[0].x_memory == 50 / 300  # both measured: a large one tells
    plain = to_row(grown(FULL, 50_000_000, 5_000_000))  # nothing was tried: what is counted leaves activations out
    assert (plain.peak_memory_bytes, plain.memory_grown) == (50_000_000, None)


def rendered(run: Run, rendering: str | None, **changes: Any) -> Run:
    assert run.spec is not None and run.result is not None
    return replace(run, spec=replace(run.spec, **changes), result=replace(run.result, rendering=rendering))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("raw", {"pairs": "raw"}), ("chat, by the model's template", {})),
        (("chat", {"train_on": "last"}), ("chat", {"train_on": "all"})),
        (("chat", {"chat_template": "a"}), ("chat", {"chat_template": "b"})),
    ],
)
def test_runs_whose_texts_were_made_otherwise_have_no_ratio_and_say_so(one: Any, other: Any) -> None:
    chosen, full = (rendered(run, made, **asked) for run, (made, asked) in ((make("some"), one), (FULL, other)))
    found = compare([chosen, full])
    assert found.rows[0].x_quality is None
    assert any(note.startswith("The runs differ in how texts are made (") for note in found.warnings)
    assert not any("(raw" in note or "; raw" in note for note in found.warnings), "people read it in words"
    seeds = [rendered(make("a"), one[0], **one[1]), rendered(make("b", seed=1), other[0], **other[1])]
    assert len(summarise(compare(seeds).rows)) == 2


def test_how_texts_are_made_is_told_apart_run_by_run_and_turns_of_chats_alone() -> None:
    chat, plain = rendered(make("a"), "chat, by the model's template"), rendered(make("b"), "plain text")
    (note,) = [one for one in compare([chat, plain]).warnings if "how texts are made" in one]
    assert "(chat, by the model's template, trained turns: assistant; plain text)" in note
    assert compare([rendered(FULL, "segments", train_on="last"), rendered(make("a"), "segments")]).rows[1].x_quality


def test_raw_texts_are_the_same_whatever_was_asked_of_chats_and_before_chats_were_known() -> None:
    before, now = rendered(make("some"), None, pairs="raw"), rendered(FULL, "raw", train_on="last")
    found = compare([before, now])
    assert found.rows[0].x_quality == 0.8
    assert not any("texts" in note for note in found.warnings)


def test_the_full_run_is_one_of_itself():
    row = compare([FULL]).rows[0]
    assert (row.x_params, row.x_time, row.x_memory, row.x_quality, row.x_gain) == (1, 1, 1, 1, 1)


def with_general(run: Any, share: float) -> Any:
    data = GeneralData("g", 10, 0, 20, 900, 0.18)
    return with_result(replace(run, spec=replace(run.spec, general="g", general_share=share)), general=data)


def test_a_run_with_general_data_stands_beside_those_without_and_is_no_reference_of_theirs():
    mixed = with_general(make("mixed", loss=0.9), 0.2)
    whole = with_general(make("whole", "full", exact=0.5, loss=0.1, seconds=20.0, params=800, role="full"), 0.2)
    rows = {row.run: row for row in compare([make("some"), FULL, mixed]).rows}
    assert (rows["mixed"].x_quality, rows["some"].x_quality) == (0.8, 0.8)
    assert (rows["mixed"].general_share, rows["mixed"].general_token_share) == (0.2, 0.18)
    assert rows["mixed"].forgetting == rows["some"].forgetting == 0.25
    assert rows["some"].general_share is None
    rows = {row.run: row for row in compare([make("some"), FULL, mixed, whole]).rows}
    assert (rows["mixed"].x_quality, rows["some"].x_quality) == (1.6, 0.8)
    found = summarise(compare([make("some"), mixed, with_general(make("more"), 0.5)]).rows)
    assert [one.plan for one in found] == ["block 7", *(f"block 7 with {n} % general data" for n in (20, 50))]


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"data": "other"}, {"model": "n"}, {"batch_size": 4}, {"eval_limit": 10}, {"max_length": 32}],
)
def test_a_full_run_of_something_else_gives_no_ratios_but_a_warning(change):
    seed = change.pop("seed", 0)
    comparison = compare([make("some", seed=seed, **change), FULL])
    assert comparison.rows[0].x_params is None
    assert any("No full run of the same model, data, seed and steps for some;" in text for text in comparison.warnings)


def with_result(run: Any, **changes: Any) -> Any:
    return replace(run, result=replace(run.result, **changes))


def test_a_full_run_of_another_schedule_or_other_weights_under_one_name_gives_no_ratios():
    for change in ({"warmup_steps": 90}, {"weight_decay": 0.9}):
        assert compare([make("some"), replace(FULL, spec=replace(FULL.spec, **change))]).rows[0].x_quality is None
    one, other = with_result(make("some"), weights="a"), with_result(FULL, weights="b")
    comparison = compare([one, other])
    assert comparison.rows[0].x_quality is None
    assert "The weights of m changed between the runs; they did not start alike." in comparison.warnings
    assert len(summarise(compare([one, with_result(make("b", seed=1), weights="b")]).rows)) == 2


def test_of_several_full_runs_the_one_of_the_least_test_loss_is_the_reference_in_any_order():
    worse = make("worse", "full", exact=0.2, loss=2.0, role="full")
    for runs in ([make("a"), FULL, worse], [worse, make("a"), FULL]):
        assert {row.run: row.x_quality for row in compare(runs).rows}["a"] == 0.8


def test_a_full_run_below_the_floor_or_that_forgot_is_the_reference_of_no_ratio_and_says_which_rate_to_try():
    known = {"learning_rate": 9e-3, "default_rate": 1e-3}
    prior = Floor(0.4, 1.0, Prior("label frequencies", 0.4, 1.0))
    for fault, changes in (
        ("below the floor", {"floor": prior}),
        ("forgot 2.5 nats", {"after": replace(FULL.result.after, general_loss=3.5)}),
    ):
        wrecked = with_result(FULL, **known, **changes)
        comparison = compare([make("a"), wrecked])
        beside, own = comparison.rows
        assert (beside.x_quality, beside.x_time, beside.x_gain, own.x_params) == (None, None, None, None)
        assert (own.fault, own.rate_to_try, beside.fault) == (fault, 1e-3, None)
        told = f"full: {fault}; no ratio refers to it. Try the rate 0.001."
        assert told in comparison.warnings
        assert not any("No full run" in text for text in comparison.warnings)
        assert fault in render(comparison) and "try rate" in render(comparison)
        assert json.loads(render(comparison, "json"))["rows"][1]["fault"] == fault
        assert list(csv.DictReader(io.StringIO(render(comparison, "csv"))))[1]["rate_to_try"] == "0.001"


def test_left_out_examples_and_states_of_an_earlier_run_are_said():
    short = with_result(make("a"), n_held_out_dropped=3)
    warm = with_result(make("b"), cache={"kind": "memory", "found": 12})
    own = with_result(make("c"), cache={"kind": "memory", "found": 0})
    warnings = compare([short, warm, own, FULL]).warnings
    assert "Held-out examples whose completion does not fit were left out in a." in warnings
    (said,) = (text for text in warnings if "earlier run" in text)
    assert said.startswith("b took") and "their seconds leave out" in said


def test_what_does_not_fit_together_is_said():
    comparison = compare([make("a"), make("b", model="n", steps=50), replace_rate("c"), FULL])
    text = "\n".join(comparison.warnings)
    assert "The runs differ in model (m, n)" in text
    assert "The runs differ in steps asked for (100, 50)" in text
    assert "searched for their own learning rate" in text
    given = [replace(run, spec=replace(run.spec, learning_rate=3e-3)) for run in (make("a"), FULL)]
    (said,) = compare(given).warnings
    assert "were all given the rate 0.003; the best one often differs with the blocks" in said
    searched = [replace(run, spec=replace(run.spec, learning_rate=None)) for run in (make("a"), FULL)]
    assert compare(searched).warnings == ()


def test_what_a_waiting_run_does_not_know_yet_is_no_difference():
    one = with_result(make("a"), rendering="chat, by the model's template", environment={"device": "cpu", "dtype": "x"})
    waiting = Run(Path("w"), "w", one.spec, RunState.QUEUED, None, None)
    early = replace(waiting, state=RunState.FAILED, result=RunResult(RunState.FAILED))
    assert not [text for text in compare([one, waiting, early]).warnings if "differ" in text]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "The content of d changed"),
        ({"max_rows": 9}, "The runs read d by different settings"),
        ({"prompt_template": "{a}"}, "The runs read d by different settings"),
    ],
)
def test_data_that_was_read_otherwise_has_not_changed(asked: Any, said: str):
    other = with_result(make("b", **asked), data_fingerprint="g")
    (told,) = (text for text in compare([make("a"), other]).warnings if "test sets are not the same" in text)
    assert said in told


def replace_rate(name):
    run = make(name)
    return replace(run, spec=replace(run.spec, learning_rate=None))


def test_a_run_without_a_result_is_a_row_of_unknowns_and_is_named():
    waiting = Run(Path("w"), "w", make("w").spec, RunState.QUEUED, None, None)
    broken = Run(Path("x"), "x", None, RunState.INTERRUPTED, None, "spec.json is missing")
    comparison = compare([waiting, broken, FULL])
    assert (comparison.rows[0].state, comparison.rows[0].plan, comparison.rows[0].seconds) == (
        "queued",
        "block 7",
        None,
    )
    assert (comparison.rows[1].plan, comparison.rows[1].exact_match_after) == (None, None)
    assert "Queued: w; left out of means and ratios." in comparison.warnings
    assert "Interrupted: x; left out of means and ratios." in comparison.warnings


def test_a_proof_that_does_not_hold_is_said():
    run = make("a")
    moved = replace(run, result=replace(run.result, proof=replace(GOOD, frozen_identical=False)))
    still = replace(run, result=replace(run.result, proof=replace(GOOD, tuned_unmoved=("x",), tuned_moved=1)))
    assert "Frozen tensors of a changed" in " ".join(compare([moved, FULL]).warnings)
    assert "1 tuned tensor of a did not move." in compare([still, FULL]).warnings


def test_seeds_are_averaged_with_their_spread():
    rows = compare([make(f"s{seed}", exact=exact, seed=seed) for seed, exact in enumerate((0.7, 0.8, 0.9))]).rows
    (summary,) = summarise(rows)
    assert summary.n_seeds == 3
    assert summary.runs == ("s0", "s1", "s2")
    assert summary.mean["exact_match_after"] == pytest.approx(0.8)
    assert summary.spread["exact_match_after"] == pytest.approx(0.1)
    assert summary.spread["x_time"] is None
    assert summary.note == "3 seeds, mean ± standard deviation"


def test_ratios_to_a_full_run_on_another_device_are_unknown():
    run = make("a")
    there = replace(run, result=replace(run.result, environment={"device": "cuda:0"}))
    assert compare([there, FULL]).rows[0].x_time is None


def test_runs_on_other_data_or_with_other_settings_are_no_seeds_of_one_choice():
    others = [make("data", exact=0.2, seed=1, data="other"), make("model", exact=0.2, seed=1, model="n")]
    others += [make("decay", exact=0.2, seed=1, weight_decay=0.1), make("limit", exact=0.2, seed=1, eval_limit=10)]
    for other in others:
        summaries = summarise(compare([make("a", exact=0.8), other]).rows)
        assert [summary.mean["exact_match_after"] for summary in summaries] == [0.8, 0.2], other.id
    plans = [summary.plan for summary in summarise(compare([make("a"), others[0]]).rows)]
    assert plans == ["block 7, d", "block 7, other"]


def test_a_seed_that_was_run_twice_counts_once():
    runs = [make("a", exact=0.6), make("again", exact=0.6), make("b", exact=0.8, seed=1)]
    (summary,) = summarise(compare(runs).rows)
    assert summary.n_seeds == 2
    assert summary.mean["exact_match_after"] == pytest.approx(0.7)
    assert summary.spread["exact_match_after"] == pytest.approx(0.2 / 2**0.5)


def test_one_seed_has_no_interval():
    (summary,) = summarise(compare([make("a")]).rows)
    assert summary.spread["exact_match_after"] is None
    assert summary.note == "1 seed, no interval"


def test_random_controls_of_different_blocks_are_one_group_and_failed_runs_none():
    draws = [make(f"r{seed}", (seed, 7), role="random", seed=seed) for seed in range(3)]
    failed = replace(make("f", seed=9), state=RunState.FAILED)
    summaries = summarise(compare([*draws, make("a"), failed]).rows)
    assert [(summary.plan, summary.n_seeds) for summary in summaries] == [("2 random blocks", 3), ("block 7", 1)]


def test_the_front_is_what_nothing_beats_in_both():
    quality = [0.5, 0.9, 0.9, 0.4, None, 0.95]
    cost = [1.0, 2.0, 3.0, 1.0, 0.1, 9.0]
    assert non_dominated(quality, cost) == (True, True, False, False, False, True)
    assert non_dominated([0.5, 0.5], [1.0, 1.0]) == (True, True)


def test_csv_has_every_column_and_leaves_unknown_cells_empty():
    rows = list(csv.DictReader(io.StringIO(render(compare([make("a")]), "csv"))))
    assert rows[0]["exact_match_after"] == "0.8"
    assert rows[0]["x_time"] == ""
    assert list(rows[0]) == list(to_frame(compare([])).columns)


def test_json_holds_rows_means_and_warnings():
    given = [replace(run, spec=replace(run.spec, learning_rate=3e-3)) for run in (make("a"), FULL)]
    plain = json.loads(render(compare(given), "json"))
    assert plain["rows"][0]["x_memory"] == 0.125
    assert plain["summary"][0]["note"] == "1 seed, no interval"
    assert ["were all given the rate 0.003" in told for told in plain["warnings"]] == [True]


def test_the_table_is_read_by_people():
    text = render(compare([make("a"), FULL, Run(Path("w"), "w", None, RunState.INTERRUPTED, None, "gone")]))
    assert "80.0 %" in text
    assert " - " in text
    assert "nan" not in text.lower()
    assert "None" not in text
    assert "block 7 (choice): exact match 80.0 %, 1 seed, no interval" in text
    assert "Note: Interrupted: w" in text


def test_an_unknown_format_is_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="known are: table, csv, json"):
        render(compare([FULL]), "xml")


def test_runs_that_never_answer_right_as_a_whole_are_told_by_their_loss():
    runs = [make("a", exact=0.02, loss=1.5), make("b", exact=0.0, loss=1.7, seed=1)]
    text = [
        replace(
            run,
            result=replace(
                run.result,
                before=Metrics(3.0, 20.0, 0.3, 0.0),
                after=Metrics(run.result.after.loss, 4.5, 0.5, run.result.after.exact_match, byte_perplexity=1.9),
            ),
        )
        for run in runs
    ]
    table = render(compare(text))
    assert "block 7 (choice): loss 1.6 ± 0.14, 2 seeds" in table
    assert "byte ppl after" in table
    assert "exact match 2.0 %" not in table
    assert "(choice): exact match 80.0 %" in render(compare([make("a")]))
    assert "byte ppl" not in render(compare([make("a")]))


def test_exact_match_tells_runs_apart_where_one_of_ten_answers_is_right_or_nothing_is_known():
    def told(*shares):
        rows = compare([make("a", seed=seed) for seed in range(len(shares))]).rows
        return told_by(
            [replace(row, exact_match_before=None, exact_match_after=s) for row, s in zip(rows, shares, strict=True)]
        )

    assert [told(*shares) for shares in ((0.0, 0.1), (None, None), ())] == [EXACT] * 3
    assert [told(*shares) for shares in ((0.0, 0.09), (None, 0.0))] == [LOSS] * 2


def test_what_a_run_goes_by_is_read_at_the_same_steps_in_whatever_it_is_compared_with():
    """Best of ten readings and best of two are two settings; where the last step is kept they are not."""
    asks: list[tuple[dict[str, Any], bool]] = [
        ({"keep": "best"}, False), ({"until": "flat"}, False), ({"keep": "last"}, True)
    ]  # fmt: skip
    for asked, alike in asks:
        one, other = make("one", eval_every=10, **asked), make("other", eval_every=50, seed=1, **asked)
        whole = make("full", "full", exact=1.0, loss=0.5, role="full", eval_every=50, **asked)
        found = compare([one, other, whole])
        assert (found.rows[0].reference == "full") is alike
        assert (len(summarise(found.rows[:2])) == 1) is alike
        assert ("eval every 10" in str(found.rows[0].differs)) is not alike


def test_what_time_and_memory_hang_on_beside_the_plan_is_said():
    def carried_out(run: Run, **changes: Any) -> Run:
        assert run.result is not None
        return replace(run, result=replace(run.result, **changes))

    one, whole = carried_out(make("one"), threads=8, micro_batch=16), carried_out(FULL, threads=1, micro_batch=4)
    told = " ".join(compare([one, whole]).warnings)
    assert "differ in CPU threads (8, 1), on which time and memory hang too, and quality by rounding alone." in told
    assert "differ in examples per forward pass (the batch, 4), on which" in told
    assert "hang too" not in " ".join(compare([one, carried_out(FULL, threads=8, micro_batch=16)]).warnings)
    recomputed = make("two", activation_checkpointing="non_reentrant")
    assert "activation checkpointing (off, non_reentrant)" in " ".join(compare([one, recomputed]).warnings)


def test_runs_whose_forgetting_was_read_on_other_texts_say_so_by_name() -> None:
    def read_on(run: Run, text: str | None, **known: Any) -> Run:
        assert run.result is not None
        return replace(run, result=replace(run.result, general_text=text, **known))

    def told(*runs: Run) -> str:
        return " ".join(note for note in compare(runs).warnings if "own words" in note)

    one, old, whole = read_on(make("one"), "1f2e3d4c"), make("old"), read_on(FULL, "aabbccdd")
    begun = "The texts in the base model's own words, on which forgetting is read, "
    assert told(one, whole) == f"{begun}differ (1f2e3d4c: one; aabbccdd: full); compare forgetting with care."
    assert told(one, old, make("older")).startswith(f"{begun}are not known to be the same (1f2e3d4c: one; unknown: old")
    assert told(one, read_on(FULL, "1f2e3d4c")) == told(old, FULL) == ""
    assert told(one, read_on(make("b", model="elsewhere"), "aabbccdd")) == ""  # each base model has its own
    same = [read_on(make(name, model=name), text, weights="w") for name, text in (("a", "1f2e3d4c"), ("b", None))]
    assert "own words" in told(*same)
    unread = make("stopped")
    assert unread.result is not None
    assert told(one, replace(unread, result=replace(unread.result, after=None))) == ""


def test_a_whole_model_that_was_given_other_epochs_or_steps_to_become_flat_in_is_no_reference():
    asks: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
        ({"epochs": 2.0}, {"epochs": 8.0}, False), ({"epochs": 2.0}, {"epochs": 2.0}, True),
        ({"epochs": 2.0}, {}, False), ({"steps": 50}, {"steps": 70}, False), ({"steps": 50}, {"steps": 50}, True),
    ]  # fmt: skip
    for asked, other, alike in asks:
        one = make("one", until="flat", **asked)
        whole = with_result(make("full", "full", exact=1.0, loss=0.5, role="full", until="flat", **other), steps=70)
        assert (compare([one, whole]).rows[0].reference == "full") is alike


def test_seeds_that_each_ran_until_flat_are_one_group():
    runs = [make(f"seed {seed}", seed=seed, until="flat") for seed in (0, 1)]
    ended = [replace(run, result=replace(run.result, steps=steps)) for run, steps in zip(runs, (80, 120), strict=True)]
    (group,) = summarise(compare(ended).rows)
    assert group.n_seeds == 2


def test_weights_in_another_dtype_have_not_changed():
    def held_in(dtype: str) -> Run:
        run = make(dtype)
        around = {"device": "cpu", "dtype": dtype}
        return replace(run, result=replace(run.result, weights=f"hash of {dtype}", environment=around))

    told = " ".join(compare([held_in("float32"), held_in("bfloat16")]).warnings)
    assert "differ in dtype (float32, bfloat16)" in told
    assert "The weights of" not in told


def test_the_table_names_model_and_data_only_where_runs_differ_in_them():
    head, *rows = render(compare([make("a"), make("b", data="e")])).splitlines()[:3]
    assert head.split()[:2] == ["data", "plan"] and [row.split()[0] for row in rows] == ["d", "e"]
    head, *rows = render(compare([make("a"), make("b", model="n")])).splitlines()[:3]
    assert head.split()[:2] == ["model", "plan"] and [row.split()[0] for row in rows] == ["m", "n"]
    assert render(compare([make("a"), make("b")])).split()[0] == "plan"


def test_seeds_that_drew_other_parts_of_mixed_rows_are_seeds_of_one_choice():
    template = "chat, by a plain template, since the model has none"
    one = with_result(make("a"), rendering=f"{template} (1,008), raw (8)")
    other = with_result(make("b", seed=1), rendering=f"raw (12), {template} (4)")
    comparison = compare([one, other])
    assert not any("how texts are made" in warning for warning in comparison.warnings)
    assert [summary.n_seeds for summary in summarise(comparison.rows)] == [2]
    raw = with_result(make("c", seed=1), rendering="raw")
    assert [summary.n_seeds for summary in summarise(compare([one, raw]).rows)] == [1, 1]
    assert any("how texts are made" in warning for warning in compare([one, raw]).warnings)
