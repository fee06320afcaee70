"""How often pages look at what goes on: each look takes time from it."""

import threading
from collections.abc import Iterator

import pytest

from lsf.app.actions import SECONDS, SELDOM, at_leisure
from lsf.app.runtime import runtime
from lsf.jobs.worker import Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    """The app's own, fresh."""
    runtime.clear()
    yield runtime().worker
    runtime().worker.close()
    runtime.clear()


@pytest.mark.parametrize(
    ("expected", "often", "seldom"), [(600.0, SELDOM, SELDOM), (100.0, SECONDS, SELDOM), (30.0, SECONDS, SECONDS)]
)
def test_jobs_with_minutes_to_go_are_looked_at_less_often(
    worker: Worker, expected: float, often: float, seldom: float
) -> None:
    gate = threading.Event()
    job = worker.submit("tune", "a run", lambda report: gate.wait(30), expected_seconds=expected)
    assert (at_leisure(SECONDS), at_leisure(SELDOM)) == (often, seldom)
    gate.set()
    worker.wait(job, 30)
    assert at_leisure(SELDOM) == SECONDS  # nothing goes on
