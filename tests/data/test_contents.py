import pytest

from lsf.data.contents import LAST_NUMBER, MARKED, answer_in, check_pattern, suggested_pattern
from lsf.data.reading import read_data
from lsf.errors import BadInputError


@pytest.mark.parametrize(
    ("text", "pattern", "answer"),
    [
        ("6 x 7 = 42\n#### 42", MARKED, "42"),
        ("#### 42 \nQuestion: and now?\n#### 17", MARKED, "42"),
        ("no mark 42", MARKED, None),
        ("#### ", MARKED, None),
        ("It costs $1,234.50.", LAST_NUMBER, "1234.5"),
        ("42.0", LAST_NUMBER, "42"),
        ("1,500", LAST_NUMBER, "1500"),
        ("-0.00", LAST_NUMBER, "0"),
        ("from 1 to -3", LAST_NUMBER, "-3"),
        ("5-3", LAST_NUMBER, "3"),
        ("lists 1,2345", LAST_NUMBER, "2345"),
        ("x2 and H2O", LAST_NUMBER, None),
        ("yes or no", "(yes)?", "yes"),
        ("maybe", "(yes)?", None),
    ],
)
def test_the_answer_in_a_text(text, pattern, answer):
    assert answer_in(text, pattern) == answer


@pytest.mark.parametrize("pattern", ["####", "(a)(b)", "(", "lastnumber"])
def test_a_pattern_without_its_one_group_is_refused_with_what_would_do(pattern):
    with pytest.raises(BadInputError, match=r"accepted are last-number and a regular expression with one group"):
        check_pattern(pattern)


def test_a_pattern_is_suggested_where_it_fits_every_row_and_nowhere_else():
    rows = [{"question": f"{n} + {n}?", "answer": f"{n} and {n}\n#### {2 * n}"} for n in range(1, 12)]
    (note,) = [note for note in read_data(rows).seen.notes if "####" in note]
    assert "the answer pattern '#### (.+)' measures the share right by generation" in note
    assert not any("####" in note for note in read_data([*rows, {"question": "?", "answer": "none"}]).seen.notes)
    assert suggested_pattern(["a\n#### 1 \n"]) == MARKED
    assert not any("####" in note for note in read_data([{"text": "a\n#### b"}] * 12).seen.notes)
