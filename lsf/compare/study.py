"""Many sweeps together: which criterion would have chosen well where it was not looked at before."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lsf.analysis.criteria import CRITERIA
from lsf.compare.regret import Truth, full_regret, random_regret, regret, relative
from lsf.compare.rules import Rule

CONTROLS = ("first", "last", "middle")
"""Criteria that look at positions only; `random` is the mean over every plan, `full` and `constant` stand beside."""
SLACK = 0.01
"""A simpler rule is kept unless another has so much less mean relative regret."""


@dataclass(frozen=True)
class Site:
    """One model and one task: the measured truth and every criterion's scores."""

    name: str
    """Of the site."""
    model: str
    """Sites of one model share the best constant choice."""
    task: str
    """Sites of one task are held out together."""
    truth: Truth
    """Of its sweep."""
    scores: Mapping[str, Sequence[float]]
    """Criterion -> score of each block; only those that scored every block."""


@dataclass(frozen=True)
class Entry:
    """One row of the table: how much a way of choosing loses on each site and budget."""

    name: str
    """Criterion, rule or control."""
    kind: str
    """criterion, rule or control."""
    relative: Mapping[tuple[str, int], float]
    """(Site, budget) -> relative regret; only where it is known."""
    complexity: int = 1
    """Things to be explained."""

    def mean(self, budget: int | None = None, without: Collection[str] = ()) -> float | None:
        """Return the mean over sites, each budget of a site weighing the same; None where nothing is known.

        Args:
            budget: only this one; None takes all.
            without: sites that are not counted.
        """
        kept: dict[str, list[float]] = {}
        for (site, size), value in self.relative.items():
            if budget in (None, size) and site not in without:
                kept.setdefault(site, []).append(value)
        return float(np.mean([np.mean(values) for values in kept.values()])) if kept else None


def budgets_of(site: Site) -> tuple[int, ...]:
    """Return 1, 2 and a quarter of the blocks, as far as the sweep measured every plan of that size."""
    wanted = {1, 2, max(1, site.truth.n_blocks // 4)}
    return tuple(size for size in sorted(wanted) if size in site.truth.budgets)


def entries(sites: Sequence[Site], rules: Sequence[Rule] = ()) -> list[Entry]:
    """Return a row for every criterion and rule, then the controls.

    Args:
        sites: where full fine-tuning gains something; others have no relative regret and are left out.
        rules: further ways of choosing.
    """
    judged = [name for name, entry in CRITERIA.items() if entry.needs != "nothing"]
    rows = [Entry(name, "criterion", of_rule(sites, Rule((name,)))) for name in judged]
    rows += [Entry(rule.name, "rule", of_rule(sites, rule), rule.complexity) for rule in rules]
    rows += [Entry(name, "control", of_rule(sites, Rule((name,)))) for name in CONTROLS]
    rows.append(Entry("random", "control", _of_plans(sites, random_regret)))
    rows.append(Entry("full", "control", _of_plans(sites, full_regret)))
    rows.append(Entry("constant", "control", _of_constant(sites)))
    return [row for row in rows if row.relative]


def of_rule(sites: Sequence[Site], rule: Rule) -> dict[tuple[str, int], float]:
    """Return (site, budget) -> relative regret of a rule's choice, where it was measured."""
    found: dict[tuple[str, int], float] = {}
    for site in sites:
        for budget in budgets_of(site):
            choice = rule.choose(site.scores, budget, site.truth.n_blocks)
            if choice is None or choice not in site.truth.scores:
                continue
            lost = regret(site.truth, choice).relative
            if lost is not None:
                found[site.name, budget] = lost
    return found


def _of_plans(sites: Sequence[Site], lost_at: Callable[[Truth, int], float]) -> dict[tuple[str, int], float]:
    places = [(site, budget) for site in sites for budget in budgets_of(site)]
    found = {(site.name, size): relative(site.truth, lost_at(site.truth, size)) for site, size in places}
    return {place: lost for place, lost in found.items() if lost is not None}


def _of_constant(sites: Sequence[Site]) -> dict[tuple[str, int], float]:
    """Return the regret of the plan that is best on average over all tasks of a model, in hindsight."""
    found: dict[tuple[str, int], float] = {}
    for model in dict.fromkeys(site.model for site in sites):
        own = [site for site in sites if site.model == model and site.truth.range > 0]
        for budget in {budget for site in own for budget in budgets_of(site)}:
            able = [site for site in own if budget in budgets_of(site)]
            lost = {plan: [regret(site.truth, plan).relative or 0.0 for site in able] for plan in _shared(able, budget)}
            best = min(lost, key=lambda plan: float(np.mean(lost[plan])))
            found |= {(site.name, budget): value for site, value in zip(able, lost[best], strict=True)}
    return found


def _shared(sites: Sequence[Site], budget: int) -> list[tuple[int, ...]]:
    return sorted(set.intersection(*(set(site.truth.plans(budget)) for site in sites)))


@dataclass(frozen=True)
class HeldOut:
    """A way of choosing, chosen without the site it is judged on."""

    chosen: Mapping[str, str]
    """Site -> the simplest of the rows that were best on the sites of other groups."""
    relative: Mapping[tuple[str, int], float]
    """(Site, budget) -> its relative regret there."""

    @property
    def mean(self) -> float:
        """Mean over sites, each budget of a site weighing the same."""
        return Entry("held out", "", self.relative).mean() or 0.0


def simplest_of_the_best(rows: Sequence[Entry], without: Collection[str] = ()) -> Entry:
    """Return the simplest row whose mean relative regret is within `SLACK` of the least; of several, the best.

    Args:
        rows: candidates; of equally simple and equally good ones the first.
        without: sites that are not looked at.
    """
    known = [(row, mean) for row in rows if (mean := row.mean(without=without)) is not None]
    least = min(mean for _, mean in known)
    good = [(row.complexity, mean, place) for place, (row, mean) in enumerate(known) if mean <= least + SLACK]
    return known[min(good)[2]][0]


def leave_out(rows: Sequence[Entry], groups: Mapping[str, Collection[str]]) -> HeldOut:
    """Choose a row for each group of sites by the others, and see what it loses there.

    Args:
        rows: candidates, the simplest first; each known on every site.
        groups: name -> sites left out together: one site, one task, or all sites of one model; at least two groups.
    """
    chosen: dict[str, str] = {}
    lost: dict[tuple[str, int], float] = {}
    for group in groups.values():
        row = simplest_of_the_best(rows, group)
        chosen |= dict.fromkeys(group, row.name)
        lost |= {place: value for place, value in row.relative.items() if place[0] in group}
    return HeldOut(chosen, lost)


def paired_difference(
    one: Mapping[tuple[str, int], float], other: Mapping[tuple[str, int], float]
) -> tuple[float, float, float] | None:
    """Return the mean of `other` minus `one` over sites, and its 95 % interval (Student's t); None below two sites."""
    sites: dict[str, list[float]] = {}
    for place in one.keys() & other.keys():
        sites.setdefault(place[0], []).append(other[place] - one[place])
    values = [float(np.mean(differences)) for differences in sites.values()]
    if len(values) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    middle = float(np.mean(values))
    return middle, middle - half, middle + half
