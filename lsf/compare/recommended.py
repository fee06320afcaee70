"""How the recommended rule did where the truth is known: its record, and its choice site by site."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from lsf.analysis.criteria import CRITERIA
from lsf.analysis.recommend import ENDS_FROM, RECOMMENDED
from lsf.compare.chance import decided
from lsf.compare.evidence import Measured, packed_evidence
from lsf.compare.regret import Blocks, random_regret, regret, relative
from lsf.compare.rules import Rule, candidate_rules
from lsf.compare.study import Entry, Site, budgets_of, entries, leave_out, of_rule

TOO_DEAR = ("nothing", "runs")
"""Needs of criteria that are no candidates of a recommendation: controls, and what costs about a full fine-tune."""


@dataclass(frozen=True)
class Failing:
    """A model on whose tasks a rule did worse than chance."""

    model: str
    """Its name in the study."""
    mean: float
    """Relative regret of the rule there."""
    random: float
    """That of plans drawn by lot."""


@dataclass(frozen=True)
class RecommendationRecord:
    """What a rule lost, as relative regret, each site weighing the same."""

    n_sites: int
    """Pairs of a model and a task with known regret."""
    n_models: int
    """Different models among them."""
    n_tasks: int
    """Different tasks among them."""
    mean: float
    """Of the rule."""
    worst: float
    """Of the rule, on any site and budget."""
    worst_site: str
    """That site."""
    without_task: float
    """Of the rules chosen without the task they are judged on."""
    without_model: float
    """Of the rules chosen without the model they are judged on."""
    first: float
    """Of the first blocks."""
    last: float
    """Of the last blocks."""
    random: float
    """Of plans drawn by lot."""
    n_announced: int
    """Pairs that were named after the rule was made and before they were measured."""
    announced: float | None
    """Of the rule on those; None where there are none."""
    announced_random: float | None
    """Of plans drawn by lot on those."""
    failing: tuple[Failing, ...] = ()
    """Models on which it lost more than plans drawn by lot."""


@dataclass(frozen=True)
class Elsewhere:
    """What the rule would have chosen on one site at one budget."""

    model: str
    """Of the site."""
    task: str
    """Of the site."""
    choice: Blocks
    """Of the rule."""
    best: Blocks
    """Of the sweep."""
    relative: float | None
    """Relative regret."""
    by_lot: float | None
    """Relative regret of plans drawn by lot."""
    decided: bool | None
    """Whether plans of the budget differ beyond chance."""


def gaining(sites: Sequence[Measured]) -> list[Site]:
    """Return the sites where full fine-tuning gains something, so that relative regret is known."""
    return [one.site for one in sites if one.site.truth.range > 0]


def candidates_of(sites: Sequence[Site], pairs: bool = False) -> list[Entry]:
    """Return the candidates of a recommendation that are known on every site, the simplest first.

    Args:
        sites: with scores on the samples that a recommendation can afford.
        pairs: rank averages of two criteria too.
    """
    names = [name for name, entry in CRITERIA.items() if entry.needs not in TOO_DEAR]
    rules = [rule for rule in candidate_rules(names) if pairs or len(rule.criteria) == 1]
    wanted = {(site.name, budget) for site in sites for budget in budgets_of(site)}
    by_name = {row.name: row for row in entries(sites, rules) if row.kind == "rule"}
    return [row for rule in rules if (row := by_name.get(rule.name)) and set(row.relative) == wanted]


def groups_by(sites: Sequence[Site], what: str) -> dict[str, list[str]]:
    """Return task or model -> names of its sites."""
    groups: dict[str, list[str]] = {}
    for site in sites:
        groups.setdefault(getattr(site, what), []).append(site.name)
    return groups


def record_of(sites: Sequence[Measured], criteria: tuple[str, ...], ends_from: int | None) -> RecommendationRecord:
    """Return how a rule and its controls did; the sites must hold at least two tasks and two models."""
    known = gaining(sites)
    rows = {row.name: row for row in entries(known)}
    own = Entry("", "rule", of_rule(known, Rule(criteria, ends_from is not None)))
    candidates = candidates_of(known)
    seen = [one.site.name for one in sites if not one.announced]
    held_out = {what: leave_out(candidates, groups_by(known, what)).mean for what in ("task", "model")}
    return RecommendationRecord(
        n_sites=len(known),
        n_models=len({site.model for site in known}),
        n_tasks=len({site.task for site in known}),
        mean=own.mean() or 0.0,
        worst=max(own.relative.values(), default=0.0),
        worst_site=max(own.relative, key=lambda place: own.relative[place])[0],
        without_task=held_out["task"],
        without_model=held_out["model"],
        first=rows["first"].mean() or 0.0,
        last=rows["last"].mean() or 0.0,
        random=rows["random"].mean() or 0.0,
        n_announced=sum(site.name not in seen for site in known),
        announced=own.mean(without=seen),
        announced_random=rows["random"].mean(without=seen),
        failing=_failing(known, own, rows["random"]),
    )


def _failing(sites: Sequence[Site], own: Entry, lot: Entry) -> tuple[Failing, ...]:
    found = []
    for model, names in groups_by(sites, "model").items():
        others = [site.name for site in sites if site.name not in names]
        mean, random = (row.mean(without=others) for row in (own, lot))
        if mean is not None and random is not None and mean > random:
            found.append(Failing(model, mean, random))
    return tuple(found)


@cache
def packed_record() -> RecommendationRecord:
    """Return the record of the package's own rule on the packed evidence, computed once."""
    return record_of(packed_evidence(), RECOMMENDED, ENDS_FROM)


def elsewhere(
    sites: Sequence[Measured], criteria: tuple[str, ...], ends_from: int | None, budget: int
) -> list[Elsewhere]:
    """Return the rule's choice on every site whose sweep holds all plans of the budget."""
    found, rule = [], Rule(criteria, ends_from is not None)
    for site in gaining(sites):
        truth = site.truth
        choice = rule.choose(site.scores, budget, truth.n_blocks) if budget in truth.budgets else None
        if choice is None or choice not in truth.scores:
            continue
        lost, lot = regret(truth, choice), relative(truth, random_regret(truth, budget))
        found.append(Elsewhere(site.model, site.task, choice, lost.best, lost.relative, lot, decided(truth, budget)))
    return found


def rule_words(criteria: tuple[str, ...], ends_from: int | None) -> str:
    """Say the rule in a sentence."""
    labels = [CRITERIA[name].label for name in criteria]
    by = f"of the highest {labels[0]}" if len(labels) == 1 else f"of the best mean rank by {' and '.join(labels)}"
    text = f"The rule: the block, or run of neighbours, {by}"
    return f"{text}; from {ends_from} blocks on, both ends of the model." if ends_from is not None else f"{text}."
