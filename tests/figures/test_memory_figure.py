"""The stacked bars of what runs are expected to need."""

from typing import Any

import pandas as pd

from lsf.figures.palette import Picture
from lsf.figures.runs import Need, draw_memory

CHOICE = Need("block 3", {"gradients": 2_000_000, "activations": 1_000_000})
FULL = Need("full fine-tuning", {"gradients": 9_000_000, "activations": None})


def drawn(picture: Picture) -> Any:
    """The figure, whose attributes Plotly makes at run time."""
    return picture.figure


def test_each_part_is_a_trace_with_a_pattern_of_its_own_and_totals_are_written_at_the_ends() -> None:
    picture = draw_memory([CHOICE, FULL])
    gradients, activations = drawn(picture).data
    assert list(gradients.x) == [2.0, 9.0]
    assert list(activations.x) == [1.0, 0.0]
    assert gradients.marker.pattern.shape != activations.marker.pattern.shape
    assert [note.text for note in drawn(picture).layout.annotations] == ["3.0 MB", "at least 9.0 MB"]
    assert picture.title == "Memory: 3.0 MB for block 3, at least 9.0 MB for full fine-tuning"


def test_a_part_that_was_not_tried_is_told_and_stays_unknown_in_the_table() -> None:
    picture = draw_memory([CHOICE, FULL], allowed=5e6)
    assert "activations not tried" in picture.alt
    assert "A run may take 5.0 MB." in picture.alt
    told = {(row["run"], row["part"]): row["bytes"] for row in picture.table.to_dict("records")}
    assert [told["block 3", part] for part in ("gradients", "activations", "all")] == [2e6, 1e6, 3e6]
    assert told["full fine-tuning", "gradients"] == 9e6
    assert all(pd.isna(told["full fine-tuning", part]) for part in ("activations", "all"))


def test_what_there_is_gets_a_line_only_where_it_is_near() -> None:
    assert [line.x0 for line in drawn(draw_memory([CHOICE], allowed=5e6)).layout.shapes] == [5.0]
    assert not drawn(draw_memory([CHOICE], allowed=5e9)).layout.shapes


def test_large_models_are_drawn_in_gigabytes() -> None:
    picture = draw_memory([Need("full", {"gradients": 14_000_000_000})])
    assert "(GB)" in drawn(picture).layout.xaxis.title.text
    assert list(drawn(picture).data[0].x) == [14.0]
