"""The study's tables of docs/results/evidence.md: ways of choosing by model and budget, and pair by pair."""

from collections.abc import Sequence
from statistics import mean

from benchmarks.evidence_files import Found
from benchmarks.evidence_report import RULE
from benchmarks.settings import waves_of
from lsf.evidence.packed import groups_by
from lsf.evidence.regret import regret
from lsf.evidence.study import Entry, Rule, Setting, budgets_of, decided, entries, of_rule

OWN = f"**recommended: {RULE.name}**"
TITLES = {
    "full": "full fine-tuning",
    "constant": "best constant per model (hindsight)",
    "depth": "neighbours at the depth that lost least on the other models",
    "random": "at random (mean)",
    "last, ends from 2": "`last`; both ends from 2",
}
"""Name of a row -> how it stands in the table, where it is no criterion."""
IN_WAVES = (OWN, "stiffness", "reduction", "deviation", "constant", "depth", "last", "random", "middle", "first")
"""Rows of the table of pairs by when they were measured."""
SHORTLISTS = (1, 2, 3, 4, 5)
"""Plans of the highest score among which short runs choose."""


def print_tables(found: Sequence[Found]) -> None:
    """Print the tables in Markdown."""
    gaining = [one for one in found if one.setting.truth.gains]
    settings, small = [one.setting for one in gaining], [one.small.setting for one in gaining]
    rows = [Entry(OWN, "rule", of_rule(small, RULE)), *entries(settings, (Rule(("last",), ends=True),))]
    rows.sort(key=lambda row: (row.kind == "control", row.mean() or 0.0))
    models = groups_by(settings, "model")
    quarter = {(setting.name, max(1, setting.truth.n_blocks // 4)) for setting in settings}
    line("way of choosing", *(f"{name} ({len(own)})" for name, own in models.items()), "@1", "@2", "@L/4", "mean")
    line(*["---"] * (len(models) + 5))
    for row in rows:
        per_model = [
            row.mean(without=[setting.name for setting in settings if setting.name not in own])
            for own in models.values()
        ]
        at_quarter = Entry("", "", {place: lost for place, lost in row.relative.items() if place in quarter}).mean()
        title = row.name if row.name == OWN else TITLES.get(row.name, f"`{row.name}`")
        line(title, *map(percent, (*per_model, row.mean(1), row.mean(2), at_quarter, row.mean())))
    print()
    by_name = {row.name: row for row in rows}
    line(*"pair,base,full,best block,recommended,its loss @1,@2,first,last,at random,decided @1 and @2".split(","))
    line(*["---"] * 11)
    for setting, read in zip(settings, small, strict=True):
        line(*_pair(setting, read, by_name))
    print()
    _waves([row for row in rows if row.name in IN_WAVES], [setting.name for setting in settings])
    print()
    line("short runs choose among", *map(str, SHORTLISTS), "all")
    line(*["---"] * (len(SHORTLISTS) + 2))
    line(f"plans of the greatest {RULE.name}", *(percent(shortlist(gaining, size)) for size in (*SHORTLISTS, 10**6)))


def _waves(rows: Sequence[Entry], names: Sequence[str]) -> None:
    waves = waves_of(names)
    line("way of choosing", *(f"{wave} ({len(own)})" for wave, own in waves.items()))
    line(*["---"] * (len(waves) + 1))
    for row in rows:
        means = (row.mean(without=[name for name in names if name not in own]) for own in waves.values())
        line(TITLES.get(row.name, row.name), *map(percent, means))


def _pair(setting: Setting, read: Setting, rows: dict[str, Entry]) -> list[str]:
    truth, budgets = setting.truth, budgets_of(setting)
    chosen = RULE.choose(read.scores, 1, truth.n_blocks)
    controls = [
        mean(rows[name].relative[setting.name, size] for size in budgets) for name in ("first", "last", "random")
    ]
    sure = {True: "yes", False: "no", None: "-"}
    return [
        setting.name,
        f"{truth.base:.2f}",
        f"{mean(truth.full):.2f}",
        str(regret(truth, truth.plans(1)[0]).best[0]),
        str(chosen[0]) if chosen else "-",
        *(percent(rows[OWN].relative.get((setting.name, size))) for size in (1, 2)),
        *map(percent, controls),
        ", ".join(sure[decided(truth, size)] for size in (1, 2)),
    ]


def shortlist(found: Sequence[Found], size: int) -> float | None:
    """Return what is lost where ten real steps on each block choose among the plans of the highest score.

    Args:
        found: settings with the scores of the rule's first criterion and of `probe`.
        size: plans on the list; neighbours, whose scores are summed over blocks.
    """
    lost: dict[tuple[str, int], float] = {}
    for one in found:
        truth, score = one.setting.truth, one.small.setting.scores[RULE.criteria[0]]
        probe = one.setting.scores["probe"]
        for budget in budgets_of(one.setting):
            windows = [tuple(range(start, start + budget)) for start in range(truth.n_blocks - budget + 1)]
            listed = sorted(windows, key=lambda plan: -sum(score[block] for block in plan))[:size]
            choice = max(listed, key=lambda plan: sum(probe[block] for block in plan))
            lost[one.setting.name, budget] = regret(truth, choice).relative or 0.0
    return Entry("", "", lost).mean()


def line(*cells: str) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(cells) + " |")


def percent(share: float | None) -> str:
    """Return a share in percent with one decimal, `-` where it is not known."""
    return "-" if share is None else f"{100 * share:.1f}"
