"""What is registered stands in the README, in a table where there is one."""

from pathlib import Path

import pytest

from lsf.analysis.criteria import CRITERIA
from lsf.analysis.policies import POLICIES
from lsf.bundled.lessons import LESSONS
from lsf.export.targets import EXPORTS
from lsf.training.catalogue import CATALOGUE

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
FIRST_CELLS = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("name", [*CRITERIA, *CATALOGUE])
def test_every_criterion_and_every_method_has_a_row_of_its_own(name: str) -> None:
    assert sum(f"`{name}`" in cell for cell in FIRST_CELLS) == 1


@pytest.mark.parametrize("name", [*POLICIES, *LESSONS, *EXPORTS])
def test_every_policy_lesson_and_export_is_named(name: str) -> None:
    assert f"`{name}`" in TEXT
