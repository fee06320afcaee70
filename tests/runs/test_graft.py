"""Which of the tuned blocks did it: the sentence, by hand-made grafts; and the record as a file."""

from pathlib import Path

import pytest

from lsf.errors import RunError
from lsf.runs.graft import Difference, Effect, Graft, Part, Reading, which_did_it

FLOOR, BASE, TUNED = Reading(3.0, 0.1), Reading(8.0, 0.0), Reading(1.0, 0.9)


def around(mean: float, half: float = 0.1) -> Difference:
    return Difference(mean, mean - half, mean + half)


def effect(worth: float, most: float, half: float = 0.1) -> Effect:
    """A part that is worth so many nats, where the one worth most is worth `most`."""
    behind = None if worth == most else around(most - worth)
    return Effect(Reading(3.0 - worth, 0.5), around(worth, half), around(0.4), behind)


def graft(alone: dict[int | None, float], without: dict[int | None, float], gain: float = 2.0) -> Graft:
    parts = [
        Part(part, effect(alone[part], max(alone.values())), effect(without[part], max(without.values())))
        for part in alone
    ]
    return Graft(50, FLOOR, BASE, TUNED, around(gain), around(0.8), tuple(parts))


def test_one_block_that_is_first_both_ways_did_it() -> None:
    found = graft({5: 0.1, 6: 1.4}, {5: 0.3, 6: 0.9})
    answer, together = which_did_it(found)
    assert answer == (
        "Block 6 did most of it: alone it brings 1.4 (1.3 to 1.5) nats, and 0.9 (0.8 to 1) are lost without it, of 2 "
        "nats (1.9 to 2.1) over the floor on 50 test rows."
    )
    assert together.startswith("What they bring alone adds up to 75 % of the gain: the rest takes several")
    assert found.share(found.parts[1], "alone") == pytest.approx(0.7)
    small = graft({5: 0.1, 6: 0.8}, {5: 0.3, 6: 0.9})
    assert which_did_it(small)[0].startswith("Block 6 did more than any other: alone it brings 0.8")


def test_blocks_whose_difference_may_be_chance_cannot_be_told_apart() -> None:
    answer, together = which_did_it(graft({4: 0.2, 5: 0.95, 6: 1.0}, {4: 0.85, 5: 0.2, 6: 0.9}))
    assert answer.startswith(
        "Blocks 5 and 6 cannot be told apart by what they bring alone, at most 1 (0.9 to 1.1) nats; blocks 4 and 6 "
        "cannot be told apart by what is lost without them, at most 0.9 (0.8 to 1) nats, of 2 nats"
    )
    assert together == "What they bring alone adds up to the whole gain (108 %), as if each worked by itself."


def test_both_ways_may_name_different_blocks() -> None:
    answer, together = which_did_it(graft({5: 1.9, 6: 1.2}, {5: 0.1, 6: 0.9}))
    assert answer.startswith(
        "Block 5 brings the most alone, 1.9 (1.8 to 2) nats; block 6 is missed most when taken out"
    )
    assert together.endswith("adds up to 155 % of the gain: their contributions overlap.")


def test_where_none_reaches_the_floor_alone_none_did_it_alone() -> None:
    answer, together = which_did_it(graft({5: -3.0, None: -1.0}, {5: 0.5, None: 1.5}))
    assert answer.startswith(
        "None did it alone: the best, what was tuned outside the blocks, ends at a loss of 4, where the floor is 3. "
        "What was tuned outside the blocks is missed most when taken out, 1.5 (1.4 to 1.6) nats, of 2 nats"
    )
    assert together == ""


def test_nothing_gained_one_part_and_a_loss_that_is_not_finite_have_their_own_sentences() -> None:
    nothing = graft({5: 0.0, 6: 0.01}, {5: 0.0, 6: 0.01}, gain=0.02)
    assert which_did_it(nothing)[0].startswith("By the loss, tuning gained nothing beyond chance, 0.02")
    assert nothing.share(nothing.parts[0], "alone") is None
    assert which_did_it(graft({6: 2.0}, {6: 2.0}))[0].startswith("Block 6 did all of it, since nothing else was tuned")
    broken = Graft(50, FLOOR, BASE, Reading(None, 0.0), None, around(0.0), nothing.parts)
    assert which_did_it(broken) == ("A loss is not finite, so which block did it is unknown.", "")
    worse = graft({5: 0.0, 6: 0.01}, {5: 0.0, 6: 0.01}, gain=-0.5)
    ends = "The tuned model ends 0.5 nats (-0.6 to -0.4) below the floor on 50 test rows, so no block did it."
    assert which_did_it(worse) == (ends, "")
    single = Difference(1.0, None, None)
    assert (single.side, single.words) == (0, "1 row, no interval")


def test_a_graft_is_a_file_that_is_read_back_or_refused(tmp_path: Path) -> None:
    found, place = graft({5: 0.1, None: 1.4}, {5: 0.3, None: 0.9}), tmp_path / "graft.json"
    found.save(place)
    assert Graft.load(place) == found
    place.write_text(place.read_text().replace('"n_rows": 50', '"n_rows": "many"'))
    with pytest.raises(RunError, match="n_rows is 'many'; a whole number was expected"):
        Graft.load(place)
