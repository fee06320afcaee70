"""One bar and one ETA over all phases of long work, by hand-made times."""

import pytest

from lsf.progress import Pace, Part, Phase, Silent, duration, left, phrase

PLAN = (Phase("reading", 10.0), Phase("training", 100.0), Phase("test", 40.0))


def begun(*phases: Phase) -> Pace:
    pace = Pace(0.0)
    pace.plan(phases or PLAN, 0.0)
    return pace


def test_before_anything_is_measured_all_that_was_predicted_is_left() -> None:
    found = begun().look(0.0)
    assert (found.eta_seconds, found.fraction) == (150.0, 0.0)
    assert found.phases == ("reading", "training", "test")


def test_a_phase_is_left_by_its_own_pace_once_it_has_run_for_a_bit() -> None:
    pace = begun()
    pace.enter("reading", 0.0)
    pace.enter("training", 10.0)
    pace.tell(10, 100, "step 10 of 100", 30.0)
    pace.tell(20, 100, "step 20 of 100", 50.0)
    found = pace.look(50.0)
    scale = 2.0 ** (
        10 / (15 + 10 + 10)
    )  # the ten after the first ones took twice what was predicted, the reading just that
    assert found.eta_seconds == pytest.approx(4 * 40 + 40 * scale)
    assert found.fraction == pytest.approx(50 / (50 + 4 * 40 + 40 * scale))


def test_what_is_to_come_is_scaled_by_what_the_phases_before_took() -> None:
    pace = begun(Phase("one", 100.0), Phase("two", 100.0))
    pace.enter("one", 0.0)
    pace.enter("two", 200.0)
    left_now = pace.look(200.0).eta_seconds
    assert left_now is not None
    assert 170 < left_now <= 200


def test_what_a_phase_gets_ready_before_its_first_unit_is_no_part_of_its_pace() -> None:
    pace = begun(Phase("training", 40.0))
    pace.enter("training", 0.0)
    pace.tell(1, 20, "", 12.0)  # ten seconds of them before the first step
    found = pace.look(12.0).eta_seconds
    assert found is not None
    assert found == pytest.approx(38)  # and not 228
    for step in (2, 3, 4):
        pace.tell(step, 20, "", 10.0 + 2 * step)
    assert pace.look(18.0).eta_seconds == pytest.approx(32)


def test_a_phase_that_had_nothing_to_do_does_not_make_the_others_fast() -> None:
    pace = begun(Phase("search", 20.0), Phase("trial", 1.0), Phase("training", 100.0))
    pace.enter("search", 0.0)
    pace.enter("trial", 0.1)
    assert pace.look(0.1).eta_seconds == pytest.approx(101)


def test_predictions_are_corrected_by_what_the_same_phase_took_before_as_far_as_it_is_of_their_size() -> None:
    before = {"training": (10.0, 20.0)}
    for predicted, expected in ((10.0, 19.0), (3600.0, 3620.0)):
        pace = Pace(0.0, before)
        pace.plan((Phase("training", predicted), Phase("test", 5.0)), 0.0)
        left_now = pace.look(0.0).eta_seconds
        assert left_now == pytest.approx(expected + 5.0, rel=0.02)
    pace.enter("training", 0.0)
    pace.enter("test", 30.0)
    assert pace.took(34.0) == {"training": (3600.0, 30.0), "test": (5.0, 4.0)}


def test_a_small_phase_that_stalls_says_little_of_large_ones() -> None:
    pace = begun(Phase("one", 0.1), Phase("two", 100.0))
    pace.enter("one", 0.0)
    pace.enter("two", 30.0)
    assert pace.look(30.0).eta_seconds == pytest.approx(100, rel=0.05)


def test_nothing_is_left_only_when_nothing_is_to_come() -> None:
    pace = begun()
    pace.enter("training", 0.0)
    pace.tell(100, 100, "step 100 of 100", 100.0)
    found = pace.look(500.0)  # and nothing was heard of it since
    assert found.eta_seconds is not None
    assert found.eta_seconds > 20
    assert found.fraction < 1.0
    pace.enter("test", 500.0)
    pace.tell(4, 4, "", 540.0)
    assert pace.look(540.0).eta_seconds == 0.0


def test_a_phase_without_units_that_overruns_is_never_said_to_be_done() -> None:
    pace = begun(Phase("only", 10.0))
    pace.enter("only", 0.0)
    etas = [pace.look(now).eta_seconds for now in (0.0, 5.0, 10.0, 40.0)]
    assert etas == [10.0, 5.0, 2.5, 10.0]


def test_the_bar_never_falls_though_what_is_left_may_grow() -> None:
    pace, seen = begun(), list[float]()
    pace.enter("reading", 0.0)
    seen.append(pace.look(9.0).fraction)
    pace.enter("training", 9.0)
    for step, now in ((1, 10.0), (2, 60.0), (3, 200.0), (50, 300.0)):
        pace.tell(step, 100, "", now)
        seen.append(pace.look(now).fraction)
    pace.plan((Phase("training", 10_000.0), Phase("test", 40.0)), 300.0)
    seen.append(pace.look(300.0).fraction)
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1] < 1


def test_a_new_plan_goes_on_with_the_phase_the_work_is_in() -> None:
    pace = begun(Phase("loading"), Phase("all the rest", 1000.0))
    pace.enter("loading", 0.0)
    assert pace.look(3.0).eta_seconds is None  # nobody knows how long loading takes
    pace.plan((Phase("loading", 4.0), Phase("training", 20.0)), 3.0)
    found = pace.look(3.0)
    assert (found.phase, found.eta_seconds) == ("loading", 21.0)


def test_first_steps_that_also_fill_a_cache_do_not_set_the_pace() -> None:
    phase = Phase("training", 200.0, extra_seconds=100.0, extra_share=0.25)
    assert phase.cost_share(0.25) == pytest.approx((25 + 100) / 200)
    pace = begun(phase)
    pace.enter("training", 0.0)
    pace.tell(25, 100, "", 125.0)
    assert pace.look(125.0).eta_seconds == pytest.approx(75.0)


def test_phases_that_turn_out_to_be_needless_are_skipped() -> None:
    pace = begun()
    pace.enter("reading", 0.0)
    pace.enter("test", 10.0)
    assert pace.look(10.0).eta_seconds == pytest.approx(40.0)


def test_work_that_plans_nothing_is_told_stretch_by_stretch() -> None:
    pace = Pace(0.0)
    pace.tell(0, None, "reading the data", 0.0)
    assert pace.look(1.0).eta_seconds is None
    pace.tell(0, 4, "gradients", 1.0)
    pace.tell(1, 4, "gradients", 3.0)
    found = pace.look(3.0)
    assert (found.fraction, found.eta_seconds, phrase(found)) == (0.25, 6.0, "gradients")
    pace.tell(4, 4, "gradients", 9.0)
    assert pace.look(9.0).eta_seconds is None  # what comes next is not known


class Outer(Silent):
    """Keeps what a part hands on."""

    def __init__(self) -> None:
        self.told = list[tuple[float, float | None, str]]()

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        self.told.append((done, total, message))


def test_an_inner_report_moves_its_phase_of_the_outer_one_by_its_share_of_the_time() -> None:
    now, outer = 0.0, Outer()
    part = Part(outer, lambda: now)
    part.plan((Phase("training", 30.0), Phase("test", 10.0)))
    part.phase("training")
    now = 15.0
    part.progress(1, 2, "step 1 of 2")
    now = 30.0
    part.phase("test")
    assert [message for *_, message in outer.told] == ["training", "training: step 1 of 2", "test"]
    assert [done for done, *_ in outer.told] == pytest.approx([0.0, 0.375, 0.75])
    assert {total for _, total, _ in outer.told} == {1.0}


def test_the_eta_is_within_half_from_a_tenth_on_where_the_machine_is_twice_as_slow_as_predicted() -> None:
    pace, now = begun(Phase("base", 20.0), Phase("training", 100.0), Phase("test", 20.0)), 0.0
    real = {"base": 40.0, "training": 200.0, "test": 40.0}
    total, off = sum(real.values()), list[float]()
    for name, seconds in real.items():
        pace.enter(name, now)
        for step in range(1, 21):
            now += seconds / 20
            if name == "training":
                pace.tell(step, 20, "", now)
            eta = pace.look(now).eta_seconds
            assert eta is not None
            if 0.1 * total < now < 0.9 * total:
                off.append(eta / (total - now))
    assert min(off) >= 0.5
    assert max(off) <= 1.5


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "less than a second left"), (12.4, "about 12 s left"), (200, "about 3 min 20 s left")],
)
def test_what_is_left_is_told_in_words_and_never_as_zero(seconds: float, words: str) -> None:
    assert left(seconds) == words
    assert duration(7500) == "2 h 5 min"
