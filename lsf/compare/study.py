"""Many sweeps together: which criterion would have chosen well where it was not looked at before."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from lsf.analysis.criteria import CRITERIA
from lsf.compare.regret import Truth, choose, full_regret, random_regret, regret, relative

CONTROLS = ("first", "last", "middle")
"""Criteria that look at positions only; `random` is the mean over every plan, `full` and `constant` stand beside."""


@dataclass(frozen=True)
class Site:
    """One model and one task: the measured truth and every criterion's scores."""

    name: str
    """Of the site."""
    model: str
    """Sites of one model share the best constant choice."""
    truth: Truth
    """Of its sweep."""
    scores: Mapping[str, Sequence[float]]
    """Criterion -> score of each block; only those that scored every block."""


@dataclass(frozen=True)
class Entry:
    """One row of the table: how much a way of choosing loses on each site and budget."""

    name: str
    """Criterion, combination or control."""
    kind: str
    """criterion, combination or control."""
    relative: Mapping[tuple[str, int], float]
    """(Site, budget) -> relative regret; only where it is known."""

    def mean(self, budget: int | None = None, leave_out: str | None = None) -> float | None:
        """Return the mean over sites, each budget of a site weighing the same; None where nothing is known.

        Args:
            budget: only this one; None takes all.
            leave_out: a site that is not counted.
        """
        kept: dict[str, list[float]] = {}
        for (site, size), value in self.relative.items():
            if budget in (None, size) and site != leave_out:
                kept.setdefault(site, []).append(value)
        return float(np.mean([np.mean(values) for values in kept.values()])) if kept else None


def budgets_of(site: Site) -> tuple[int, ...]:
    """Return 1, 2 and a quarter of the blocks, as far as the sweep measured every plan of that size."""
    wanted = {1, 2, max(1, site.truth.n_blocks // 4)}
    return tuple(size for size in sorted(wanted) if size in site.truth.budgets)


def rank_average(parts: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean rank of each block over several criteria; higher = tune it first, ties share their rank."""
    return [float(value) for value in np.mean([stats.rankdata(part) for part in parts], axis=0)]


def combined(scores: Mapping[str, Sequence[float]], name: str) -> Sequence[float] | None:
    """Return the scores of a criterion, or of a rank average written `one+other`; None where a part is not known."""
    parts = [scores[part] for part in name.split("+") if part in scores]
    if len(parts) < len(name.split("+")):
        return None
    return parts[0] if len(parts) == 1 else rank_average(parts)


def entries(sites: Sequence[Site], combinations: Sequence[str] = ()) -> list[Entry]:
    """Return a row for every criterion and combination, then the controls.

    Args:
        sites: where full fine-tuning gains something; others have no relative regret and are left out.
        combinations: rank averages, written `one+other`.
    """
    judged = [name for name, entry in CRITERIA.items() if entry.needs != "nothing"]
    rows = [Entry(name, "criterion", _of_criterion(sites, name)) for name in judged]
    rows += [Entry(name, "combination", _of_criterion(sites, name)) for name in combinations]
    rows += [Entry(name, "control", _of_criterion(sites, name)) for name in CONTROLS]
    rows.append(Entry("random", "control", _of_plans(sites, random_regret)))
    rows.append(Entry("full", "control", _of_plans(sites, full_regret)))
    rows.append(Entry("constant", "control", _of_constant(sites)))
    return [row for row in rows if row.relative]


def _of_criterion(sites: Sequence[Site], name: str) -> dict[tuple[str, int], float]:
    found: dict[tuple[str, int], float] = {}
    for site in sites:
        scores = combined(site.scores, name)
        for budget in budgets_of(site) if scores is not None else ():
            assert scores is not None
            lost = regret(site.truth, choose(scores, budget)).relative
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
    """Site -> the entry with the least mean relative regret on the other sites; of equal ones the first."""
    relative: Mapping[tuple[str, int], float]
    """(Site, budget) -> its relative regret there."""

    @property
    def mean(self) -> float:
        """Mean over sites, each budget of a site weighing the same."""
        return Entry("held out", "", self.relative).mean() or 0.0


def leave_one_out(rows: Sequence[Entry], sites: Sequence[str]) -> HeldOut:
    """Choose the entry for each site by the others, and see what it loses there.

    Args:
        rows: candidates, the simplest first; each known on every site.
        sites: names, at least two.
    """
    chosen: dict[str, str] = {}
    lost: dict[tuple[str, int], float] = {}
    for site in sites:
        means = {row.name: row.mean(leave_out=site) for row in rows}
        name = min(means, key=lambda name: np.inf if means[name] is None else float(means[name] or 0.0))
        chosen[site] = name
        row = next(row for row in rows if row.name == name)
        lost |= {place: value for place, value in row.relative.items() if place[0] == site}
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
