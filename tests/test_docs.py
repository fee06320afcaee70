"""What the documents point to is there: files in backticks, links and their headings; and the README stays short."""

import re
from pathlib import Path
from statistics import mean

import pytest

from benchmarks.rates_fit import FORMS, left_out, points

ROOT = Path(__file__).parents[1]
LONGEST_README = 130
PAPERS = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "results").glob("*.md")),
]
"""Findings are dated and keep the names of their day; of them only the links are held."""
FINDINGS = sorted((ROOT / "docs" / "findings").glob("*.md"))
MADE = {"result.json", "analysis.json", "lsf.json", "plan.json", "spec.json", "metrics.jsonl", "room.jsonl"}
"""Written beside runs and models, or by commands."""
SUFFIXES = "py|md|json|jsonl|js|png|txt|toml|ipynb"
FOLDERS = ("", "lsf", "benchmarks")
"""A path in backticks is told from one of these."""


def paths_in(text: str) -> set[str]:
    """Return the paths in backticks: what ends like a file, or in a slash; of commands only the script."""
    quoted = re.findall(r"`([^`\n]+)`", text)
    words = {one.split()[1] if one.startswith("python ") else one for one in quoted}
    return {one for one in words if re.fullmatch(rf"(?:\.?[\w-]+/)*[\w.-]+\.(?:{SUFFIXES})|(?:[\w-]+/)+", one)}


def missing_paths(text: str) -> set[str]:
    """Return the paths in backticks that lead nowhere."""
    return {name for name in paths_in(text) - MADE if not any((ROOT / folder / name).exists() for folder in FOLDERS)}


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(paper: Path) -> list[str]:
    """Return the links of a document that lead to no file of the checkout, or to no heading of it."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", paper.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = paper.parent / name if name else paper
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken


def of(paper: Path) -> str:
    return str(paper.relative_to(ROOT))


@pytest.mark.parametrize("paper", PAPERS, ids=of)
def test_every_path_in_backticks_is_there(paper: Path) -> None:
    assert not missing_paths(paper.read_text(encoding="utf-8"))


@pytest.mark.parametrize("paper", [*PAPERS, ROOT / "CHANGELOG.md", *FINDINGS], ids=of)
def test_every_link_leads_somewhere(paper: Path) -> None:
    assert not broken_links(paper)


def test_every_finding_and_every_result_is_in_its_index() -> None:
    for folder in (ROOT / "docs" / "findings", ROOT / "docs" / "results"):
        index = (folder / "README.md").read_text(encoding="utf-8")
        assert not {one.name for one in folder.glob("*.md")} - {"README.md"} - set(re.findall(r"\(([\w.-]+)\)", index))


def test_the_architecture_names_its_files() -> None:
    assert len(paths_in((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")) - MADE) > 40


def test_every_room_has_a_phrase_in_the_readme() -> None:
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("lsf/\n")[2].partition("```")[0]
    rooms = {path.parent.name for path in (ROOT / "lsf").glob("*/__init__.py")}
    assert len(rooms) > 10
    assert not {room for room in rooms if not re.search(rf"\b{room}/ +\w", tree)}


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def test_a_path_that_leads_nowhere_and_a_link_without_heading_would_be_noticed(tmp_path: Path) -> None:
    text = (
        "`lsf/data/task.py`, `data/task.py`, `python benchmarks/evidence.py --report`, `lsf/measure/taps.py`, `lsf/ui/`"
    )
    assert missing_paths(text) == {"lsf/measure/taps.py", "lsf/ui/"}
    (tmp_path / "one.md").write_text(
        "# A heading, with commas\n[a](one.md#a-heading-with-commas) [b](one.md#b) [c](c.md)"
    )
    assert broken_links(tmp_path / "one.md") == ["one.md#b", "c.md"]


def test_the_finding_on_default_rates_has_the_means_that_its_command_prints_today() -> None:
    known = points()
    losses = {
        name: mean(lost for lost, _, _ in left_out(known, form).values() if lost is not None)
        for name, form in FORMS.items()
    }
    told = " ".join((ROOT / "docs" / "findings" / "2026-11-28-rates.md").read_text(encoding="utf-8").split())
    assert f"({', '.join(f'{name} {lost:.3f}' for name, lost in losses.items())};" in told
