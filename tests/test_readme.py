"""What is registered stands in the README, in a table where there is one; what the README says to type is accepted."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from lsf.cli.main import build_parser
from lsf.cli.plan import TARGETS
from lsf.criteria.registry import CRITERIA
from lsf.data.lessons import LESSONS
from lsf.export.targets import EXPORTS
from lsf.methods.catalogue import CATALOGUE
from lsf.plans.policies import POLICIES

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m lsf (.+?)(?:\s+#.*)?$", TEXT, re.MULTILINE)
FIRST_CELLS = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("name", [*CRITERIA, *CATALOGUE])
def test_every_criterion_and_every_method_has_a_row_of_its_own(name: str) -> None:
    assert sum(f"`{name}`" in cell for cell in FIRST_CELLS) == 1


@pytest.mark.parametrize("name", [*POLICIES, *LESSONS, *EXPORTS])
def test_every_policy_lesson_and_export_is_named(name: str) -> None:
    assert f"`{name}`" in TEXT


def test_the_shell_writes_what_the_registry_of_exports_holds() -> None:
    assert tuple(EXPORTS) == TARGETS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_can_be_typed(command: str) -> None:
    for part in command.split(" && python -m lsf "):
        assert build_parser().parse_args(shlex.split(part)).command


def test_every_option_of_the_readme_is_one_of_ours_or_of_a_named_tool() -> None:
    others = {"--use_fsdp", "--fsdp_version", "--fsdp_auto_wrap_policy", "--multi_gpu", "--num_processes"}  # accelerate
    others |= {"--logdir", "--head", "--address", "--report", "--no-deps"}  # tensorboard, ray, evidence.py, pip
    named = set(re.findall(r"--[a-z][a-z_-]+", TEXT)) - others
    assert len(COMMANDS) > 15
    assert len(named) > 30
    assert not named - options_of(build_parser())


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Return every option of a command and of those below it."""
    found: set[str] = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found |= {option for below in action.choices.values() for option in options_of(below)}
    return found


def test_every_file_that_the_architecture_names_is_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|json|md))`", text))
    assert len(named) > 40
    kept = {"result.json", "analysis.json", "lsf.json"}  # of runs and of folders made here
    missing = {name for name in named - kept if not ((ROOT / name).exists() or (ROOT / "lsf" / name).exists())}
    assert not missing
