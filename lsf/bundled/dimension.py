"""Studies of dimensions that were measured on the bundled model and are kept with it."""

from functools import cache
from pathlib import Path

from lsf.files import read_json
from lsf.jobs.dimensions import Study, parse_study

FILE = Path(__file__).with_name("dimension.json")
"""Written by `python benchmarks/dimension.py`; RESULTS.md says when, and with which versions."""
ALONG = "pretraining step "
"""Bases along pre-training are called so, with the number of steps."""


@cache
def measured() -> tuple[Study, ...]:
    """Return every study that is kept; none where the file is missing."""
    if not FILE.is_file():
        return ()
    return tuple(parse_study(value, str(FILE)) for value in read_json(FILE, "the studies of dimensions")["studies"])


def over_lessons() -> tuple[Study, ...]:
    """Return the studies of the whole bundled model, one per lesson."""
    return tuple(study for study in measured() if study.model == "bundled" and study.plan.is_full)


def over_blocks() -> tuple[Study, ...]:
    """Return the studies in which only some blocks may move, fewest values first."""
    some = [study for study in measured() if study.model == "bundled" and not study.plan.is_full]
    return tuple(sorted(some, key=lambda study: (study.data, len(study.plan.blocks))))


def along_pretraining() -> tuple[Study, ...]:
    """Return the studies of checkpoints of a pre-training, in its order."""
    found = [study for study in measured() if study.model.startswith(ALONG)]
    return tuple(sorted(found, key=lambda study: int(study.model.removeprefix(ALONG))))
