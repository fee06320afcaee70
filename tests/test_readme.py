"""What is registered stands in the README or the guides, in a table where there is one; what they say to type works."""

import argparse
import re
import shlex
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.real_plans import BUDGET, CELLS, SCORES, TASKS, Cell, Scored, read_lines
from benchmarks.real_tries import FIXED, TRIED, rates_lost
from benchmarks.real_truth import LOOKED_AT as APART
from benchmarks.real_truth import regrets, truth_of
from lsf.cli.main import build_parser
from lsf.cli.plan import TARGETS
from lsf.criteria.registry import CRITERIA
from lsf.data.formats import FORMATS
from lsf.data.lessons import LESSONS
from lsf.evidence.real import LOOKED_AT, real_tasks
from lsf.export.targets import EXPORTS
from lsf.methods.catalogue import CATALOGUE
from lsf.plans.policies import POLICIES, RECOMMENDED

ROOT = Path(__file__).parents[1]
N_BLOCKS = 30
"""Of the real model."""
NUMBERS = ("none", "one", "two", "three", "four", "five")
GUIDES = (
    "README.md",
    *(f"docs/{name}.md" for name in ("guide", "data", "criteria", "methods", "evidence", "memory", "class")),
)
TEXT = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in GUIDES)
COMMANDS = re.findall(r"^python -m lsf (.+?)(?:\s+#.*)?$", TEXT, re.MULTILINE)
FIRST_CELLS = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("name", [*CRITERIA, *CATALOGUE, *FORMATS])
def test_every_criterion_every_format_and_every_method_has_a_row_of_its_own(name: str) -> None:
    assert sum(f"`{name}`" in cell for cell in FIRST_CELLS) == 1


@pytest.mark.parametrize("name", [*POLICIES, *LESSONS, *EXPORTS])
def test_every_policy_lesson_and_export_is_named(name: str) -> None:
    assert f"`{name}`" in TEXT


def test_the_first_screen_tells_what_the_real_model_says() -> None:
    first = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split("## ")[0].split())
    tasks = {one.task.partition(",")[0]: one for one in real_tasks() if one.task != LOOKED_AT}
    lost = {name: one.lost(one.named(RECOMMENDED[0])) or 0.0 for name, one in tasks.items()}
    chance = [one.by_chance() or 0.0 for one in tasks.values()]
    shares = {name: f"{100 * share:.1f} %" for name, share in lost.items()}
    assert (
        f"the rule that is best on small models lost {100 * fmean(lost.values()):.1f} % of what tuning gains on average"
        in first
    )
    assert f"blocks at random {100 * fmean(chance):.1f} %" in first
    tried = fmean(one.lost(one.tried()) or 0.0 for one in tasks.values())
    assert f"the best of them by validation lost {100 * tried:.1f} %" in first
    for name, share in shares.items():
        assert f"{share} on {name}" in first
    blind = [one.named(RECOMMENDED[0], placebo=True) == one.named(RECOMMENDED[0]) for one in tasks.values()]
    assert (
        f"the same block on {NUMBERS[sum(blind)]} of the {NUMBERS[len(tasks)]} tasks where answers are shuffled"
        in first
    )
    worst = tasks[max(lost, key=lambda name: lost[name])]
    assert worst.task.startswith("alpaca") and worst.alone[worst.named(RECOMMENDED[0])[0]] < worst.base


def test_the_first_screen_tells_what_eight_blocks_of_it_lost() -> None:
    tasks = [one for one in real_tasks() if one.task != LOOKED_AT and BUDGET in one.budgets]
    ways = [
        [one.lost(one.named(RECOMMENDED[0], BUDGET)) for one in tasks],
        [one.lost(one.tried(BUDGET)) for one in tasks],
        [one.by_chance(BUDGET) for one in tasks],
        [one.lost(one.spaced(BUDGET)) for one in tasks],
    ]
    own, tried, chance, even = (f"{100 * fmean(value or 0.0 for value in values):.1f} %" for values in ways)
    first = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split("## ")[0].split())
    told = f"the rule lost {own}, five depths tried {tried}, sets at random {chance}, and evenly spaced blocks"
    assert f"on the same {NUMBERS[len(tasks)]} tasks, {told}, which take no measurement, {even}" in first


def test_the_first_screen_tells_what_the_task_that_counts_in_no_mean_lost() -> None:
    one = next(task for task in real_tasks() if task.task == LOOKED_AT)
    ways = {
        size: [one.lost(one.named(RECOMMENDED[0], size)), one.by_chance(size), one.lost(one.tried(size))]
        for size in (1, BUDGET)
    }
    alone, several = ([f"{100 * (value or 0.0):.1f} %" for value in values] for values in ways.values())
    even = f"{100 * (one.lost(one.spaced(BUDGET)) or 0.0):.1f} %"
    first = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split("## ")[0].split())
    told = f"at one block the rule lost {alone[0]}, blocks at random {alone[1]}, five depths tried {alone[2]}; at eight"
    assert f"{told} the rule {several[0]}, at random {several[1]}, tried {several[2]}, evenly spaced {even}." in first


def test_the_first_screen_tells_what_the_rate_counts_beside_the_depth() -> None:
    cells, scored, lost = read_lines(CELLS, Cell), read_lines(SCORES, Scored), []
    for task in TASKS:
        truth, own = truth_of(task, cells, scored, 30), [cell for cell in cells if cell.task == task]
        if task != APART and truth is not None and regrets(truth, scored, 1):
            lost.append(rates_lost(truth, own, 1))
    default, tried = (f"{100 * fmean(one[way] for one in lost):.1f} %" for way in (FIXED, TRIED))
    first = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split("## ")[0].split())
    assert f"the run at the default rate lost {default}, at the best of three rates tried {tried}" in first


def test_the_shell_writes_what_the_registry_of_exports_holds() -> None:
    assert tuple(EXPORTS) == TARGETS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_and_the_guides_can_be_typed(command: str) -> None:
    for part in command.split(" && python -m lsf "):
        assert build_parser().parse_args(shlex.split(part)).command


def test_every_option_of_the_readme_and_the_guides_is_one_of_ours_or_of_a_named_tool() -> None:
    others = {"--use_fsdp", "--fsdp_version", "--fsdp_auto_wrap_policy", "--multi_gpu", "--num_processes"}  # accelerate
    others |= {
        "--logdir",
        "--head",
        "--address",
        "--no-deps",
        "--report",
        "--tables",
        "--real",
        "--pack",
        "--gigabytes",
        "--trl",
    }  # tensorboard, ray, pip, evidence.py, data.py
    named = set(re.findall(r"--[a-z][a-z_-]+", TEXT)) - others
    assert len(COMMANDS) > 15
    assert len(named) > 30
    assert not named - options_of(build_parser())


def test_every_command_of_the_shell_is_told() -> None:
    (commands,) = (one for one in build_parser()._actions if isinstance(one, argparse._SubParsersAction))
    named = {command.split()[0] for command in COMMANDS} | set(re.findall(r"`(?:python -m lsf )?(\w+)", TEXT))
    assert not set(commands.choices) - named


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Return every option of a command and of those below it."""
    found: set[str] = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found |= {option for below in action.choices.values() for option in options_of(below)}
    return found
