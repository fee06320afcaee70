"""The picture of blocks x methods."""

from dataclasses import replace
from typing import Any

import pytest

from lsf.figures.blocks_by_methods import MEASURES, Cell, draw_front, draw_places, in_words, table_of
from lsf.figures.palette import Picture
from lsf.runs.comparison import Row


def cell(place: str, method: str, exact: float | None, stored: int | None, role: str = "choice") -> Cell:
    row = Row(
        run=f"{method}@{place}", role=role, plan=place, blocks="6", n_blocks=1, method=method, seed=0,
        learning_rate=1e-3, rate_searched=False, state="failed" if exact is None else "succeeded",
        exact_match_after=exact, stored_bytes=stored,
    )  # fmt: skip
    return Cell(place, method, row, role)


CELLS = [
    cell("block 6", "full", 0.5, 2000),
    cell("block 6", "lora", 0.75, 500),
    cell("whole model", "full", 1.0, 8000, "full"),
    cell("whole model", "bitfit", None, None, "full"),
]


def traces(picture: Picture) -> Any:
    return picture.figure.data


def test_colour_tells_the_ratio_to_full_tuning_of_the_whole_model_and_is_missing_where_that_is() -> None:
    heat, rest = traces(draw_places(CELLS))
    assert [list(line) for line in heat.z] == [[-0.5, -0.25, None], [0.0, None, None]]
    assert [list(line) for line in heat.text] == [["50 %", "75 %", ""], ["100 %", "", "failed"]]
    assert list(rest.customdata) == ["bitfit@whole model"]
    assert heat.customdata[0][1] == "lora@block 6"


def test_a_smaller_cost_is_better_on_a_logarithmic_scale() -> None:
    heat, _ = traces(draw_places(CELLS, "stored_bytes"))
    assert heat.z[0][0] == pytest.approx(2 / 3)  # a quarter of full's bytes, an eighth being the strongest colour
    assert heat.z[0][1] == 1.0
    assert in_words(500.0, MEASURES["stored_bytes"]) == "500 kB"


def test_without_the_full_run_no_cell_has_a_ratio_and_all_can_be_clicked() -> None:
    picture = draw_places(CELLS[:2])
    assert all(value is None for line in traces(picture)[0].z for value in line)
    assert len(traces(picture)[1].customdata) == 2
    assert table_of(CELLS[:2])["x exact match"].tolist() == [None, None]


def test_a_full_run_that_was_stopped_half_way_is_no_reference() -> None:
    stopped = replace(CELLS[2], row=replace(CELLS[2].row, state="cancelled"))
    assert table_of([*CELLS[:2], stopped])["x exact match"].tolist() == [None, None, None]


def test_the_picked_cell_is_marked_and_the_title_names_the_best() -> None:
    picture = draw_places(CELLS, picked="lora@block 6")
    assert traces(picture)[0].text[0][1] == "<b>[75 %]</b>"
    assert picture.title == "Best exact match: full on whole model, 100 %"
    assert draw_places(CELLS, "stored_bytes").title == "Best stored bytes: lora on block 6, 0.5 kB, full 8 kB"
    waiting = [replace(one, row=replace(one.row, state="queued", exact_match_after=None)) for one in CELLS]
    assert draw_places(waiting).title == "Blocks x methods: none of 4 cells has finished yet"


def test_the_whole_models_own_cell_is_not_compared_with_itself_whatever_the_method_is_called() -> None:
    named = [replace(one, method={"full": "All weights"}.get(one.method, one.method)) for one in CELLS]
    assert draw_places(named).title == "Best exact match: All weights on whole model, 100 %"


def test_cells_that_finished_without_a_measure_are_not_told_as_unfinished() -> None:
    assert draw_places(CELLS, "latency_ratio").title == "Latency: not measured in any of 3 finished cells"


def test_costs_under_the_pointer_have_their_unit_and_no_power_of_ten() -> None:
    picture = draw_front(CELLS[:3], (1, 2), "stored_bytes")
    hovers = [text for trace in traces(picture)[1:] for text in trace.hovertext]
    assert hovers[0] == "full on block 6<br>50 % at 2 kB<br>click for its run"
    assert picture.alt.endswith("Best: full on whole model with 100 % at 8 kB.")
    large = [replace(CELLS[0], row=replace(CELLS[0].row, stored_bytes=5_509_632))]
    assert "at 5,510 kB" in traces(draw_front(large, (0,), "stored_bytes"))[1].hovertext[0]


def test_the_front_names_the_cells_no_other_beats() -> None:
    picture = draw_front(CELLS[:3], [1, 2], "stored_bytes")
    assert picture.title == "2 of 3 cells are not beaten in both exact match and stored bytes"
    assert "lora on block 6" in picture.alt
    assert picture.figure.layout["xaxis"]["type"] is None  # 500 to 8000 bytes: sixteen times, from zero
    wide = [*CELLS[:3], cell("block 6", "did", 0.1, 8)]
    assert draw_front(wide, [0], "stored_bytes").figure.layout["xaxis"]["type"] == "log"
    assert picture.table["not beaten"].tolist() == [False, True, True]
    told = [replace(one, row=replace(one.row, gain=0.5)) for one in CELLS[:3]]
    by_gain = draw_front(told, [1], "stored_bytes", "gain")
    assert by_gain.title == "1 of 3 cells is not beaten in both gain and stored bytes"
    assert "with 0.5 nats at" in by_gain.alt
    far = [CELLS[0], replace(told[1], row=replace(told[1].row, gain=8.0)), replace(told[2], row=told[2].row)]
    bar = traces(draw_places(far, "gain"))[0].colorbar
    assert dict(zip(bar.tickvals, bar.ticktext, strict=True))[1.0] == "8 x"  # much more gain than full's is blue
    bar = traces(draw_places(CELLS, "stored_bytes"))[0].colorbar
    assert dict(zip(bar.tickvals, bar.ticktext, strict=True))[1.0] == "1/8 x"


def test_latency_is_told_with_its_interval_and_only_what_lies_beyond_it_is_called_slower() -> None:
    def timed(one: Cell, *latency: float) -> Cell:
        names = ("latency_ratio", "latency_low", "latency_high")
        return replace(one, row=replace(one.row, **dict(zip(names, latency, strict=True))))

    noisy, slow = timed(CELLS[0], 1.2, 0.9, 1.6), timed(CELLS[1], 1.08, 1.05, 1.11)
    whole = timed(CELLS[2], 1.0, 0.98, 1.02)
    heat = traces(draw_places([noisy, slow, whole], "latency_ratio"))[0]
    assert heat.z[0][0] == 0.0 > heat.z[0][1]  # what noise alone makes has no colour
    picture = draw_places([noisy, slow], "latency_ratio")
    assert picture.alt.startswith("1 of 2 cells is slower than the base at inference")
    assert "slowest lora on block 6, 1.08" in picture.alt
    hover = str(traces(picture)[0].hovertext)
    assert "1.2 x (95 %: 0.900 to 1.600)" in hover and "1.08 x (95 %: 1.050 to 1.110)" in hover
    assert table_of([noisy])["latency, 95 % to"].tolist() == [1.6]
    assert "beyond the noise of timing" in draw_places([noisy], "latency_ratio").alt
