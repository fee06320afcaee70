"""Where each token of the lens was one state before."""

from dataclasses import replace

import pandas as pd
import pytest

from lsf.criteria.result import Analysis, ExamplePath
from lsf.figures.lens import change, draw_lens, ranks_table, ranks_words


@pytest.fixture
def example(analysis: Analysis) -> ExamplePath:
    """Three kept tokens per state; the target C comes in from rank 40."""
    assert analysis.trajectories is not None
    tokens = (("A", "B", "D"), ("B", "A", "D"), ("B", "C", "E"), ("C", "B", "E"))
    return replace(
        analysis.trajectories.examples[0],
        target_token="C",
        target_rank=(90, 40, 2, 1),
        top_tokens=tuple(tuple((token, 0.5 - 0.1 * place) for place, token in enumerate(row)) for row in tokens),
    )


def test_tokens_tell_how_many_places_they_moved(example: ExamplePath) -> None:
    assert [change(example, 1, token, place) for place, token in enumerate("BAD", 1)] == ["▲ 1", "▼ 1", "="]
    assert [change(example, 0, token, place) for place, token in enumerate("ABD", 1)] == ["", "", ""]


def test_a_token_from_below_the_kept_ones_is_new_but_the_targets_rank_is_always_known(example: ExamplePath) -> None:
    assert change(example, 2, "E", 3) == "+"
    assert change(example, 2, "C", 2) == "▲ 38"


def test_the_table_of_a_state_ends_with_the_target_where_it_is_not_kept(example: ExamplePath) -> None:
    table = ranks_table(example, 1)
    assert table["token"].tolist() == ["B", "A", "D", "C"]
    assert table["place"].tolist() == [1, 2, 3, 40]
    assert table["place before"].tolist() == [2, 1, 3, 90]
    assert table["target"].tolist() == ["", "", "", "target"]
    assert len(ranks_table(example, 3)) == 3


def test_an_unknown_place_is_missing_and_no_number(example: ExamplePath) -> None:
    assert ranks_table(example, 2)["place before"].tolist() == [1, 40, pd.NA]
    assert ranks_table(example, 0)["place before"].tolist() == [pd.NA, pd.NA, pd.NA, pd.NA]


def test_words_name_the_target_and_the_first_token(example: ExamplePath) -> None:
    assert ranks_words(example, 0) == "State 0: the target C has rank 90; no state comes before."
    assert ranks_words(example, 2).endswith("has rank 2, one state before 40. B stays first.")
    assert ranks_words(example, 3).endswith("C comes first from rank 2.")


def test_the_map_of_an_example_carries_the_changes_and_its_states(example: ExamplePath) -> None:
    picture = draw_lens(example, state=2)
    heat = picture.figure.to_dict()["data"][0]
    assert [text.split()[-1] for text in heat["text"][2]] == ["=", "38", "+"]
    assert [row[0] for row in heat["customdata"]] == [0, 1, 2, 3]
    assert picture.figure.to_dict()["layout"]["yaxis"]["ticktext"][2] == "▸ 2"
    assert picture.table["change"].tolist()[3] == "▲ 1"
