"""Many sweeps together, and one sweep with every way of choosing: what would have chosen well, beyond chance."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
import scipy

from lsf.criteria.agreement import CHANCE
from lsf.criteria.registry import CRITERIA
from lsf.evidence.regret import Blocks, Truth, choose, full_regret, random_regret, regret, relative
from lsf.plans.policies import both_ends, rank_average
from lsf.plans.tries import neighbours_at


def decided(truth: Truth, budget: int) -> bool | None:
    """Say whether the plans of a budget differ by more than chance makes of their seeds.

    Returns:
        False ("not decided") where the greatest difference of two plans' means is within `least_difference`; None where
        that is unknown.
    """
    least = least_difference(truth, budget)
    means = [truth.mean(blocks) for blocks in truth.plans(budget)]
    return None if least is None else max(means) - min(means) > least


def level_with_best(truth: Truth, budget: int) -> tuple[Blocks, ...]:
    """Return the other plans of a budget that are not apart from the best by more than `least_difference`.

    Returns:
        Best first; none where the difference is unknown.
    """
    least = least_difference(truth, budget)
    if least is None:
        return ()
    best = truth.best(plans := truth.plans(budget))
    others = sorted((one for one in plans if one != best), key=lambda one: (truth.mean(one), one), reverse=True)
    return tuple(one for one in others if truth.mean(best) - truth.mean(one) <= least)


def within_chance(truth: Truth, choice: Blocks) -> bool | None:
    """Say whether what a choice loses against the best of its budget may be chance.

    Returns:
        None where `least_difference` is unknown.
    """
    least = least_difference(truth, len(choice))
    return None if least is None else regret(truth, choice).regret <= least


def least_difference(truth: Truth, budget: int) -> float | None:
    """Return how far two plans' means must lie apart to differ beyond chance: Tukey's honest significant difference.

    Studentized range at 5 %, over all plans of the budget, with the spread over seeds pooled over those that have one:
    a plan that learns nothing scores the same under every seed, which says nothing about the others. It takes the
    seeds of different plans for independent and of one spread, which is rough for two or three seeds.

    Returns:
        None below two seeds or two plans, and where no plan's seeds differ.
    """
    plans = truth.plans(budget)
    spreads = [truth.spread(blocks) for blocks in plans]
    varied = [spread for spread in spreads if spread]
    if None in spreads or len(plans) < 2 or not varied:
        return None
    seeds = min(len(truth.scores[blocks]) for blocks in plans)
    pooled = math.sqrt(float(np.mean(np.square(varied))))
    return _studentized_range(len(plans), len(varied) * (seeds - 1)) * pooled / math.sqrt(seeds)


@cache
def _studentized_range(groups: int, freedom: int) -> float:
    return float(scipy.stats.studentized_range.ppf(1 - CHANCE, groups, freedom))


@dataclass(frozen=True)
class Rule:
    """One way of choosing, simple enough to be said in a sentence."""

    criteria: tuple[str, ...]
    """One criterion, or several whose ranks are averaged."""
    ends: bool = False
    """True: from two blocks on, tune both ends of the model, whatever the criteria say."""

    @property
    def name(self) -> str:
        """`a`, `a+b`, or either with `, ends from 2`."""
        return "+".join(self.criteria) + (", ends from 2" if self.ends else "")

    @property
    def complexity(self) -> int:
        """Things to be explained."""
        return len(self.criteria) + self.ends

    def choose(self, scores: Mapping[str, Sequence[float]], budget: int, n_blocks: int) -> Blocks | None:
        """Return the blocks it tunes; None where a criterion was not measured.

        Args:
            scores: criterion -> score of each block.
            budget: number of blocks.
            n_blocks: L of the model.
        """
        if self.ends and budget > 1:
            return both_ends(n_blocks, budget)
        parts = [scores[name] for name in self.criteria if name in scores]
        if len(parts) < len(self.criteria):
            return None
        return choose(parts[0] if len(parts) == 1 else rank_average(parts), budget)


def candidate_rules(criteria: Iterable[str]) -> tuple[Rule, ...]:
    """Return every criterion and every pair of them, each with and without both ends, the simplest first."""
    names = list(criteria)
    parts = [(name,) for name in names] + list(combinations(names, 2))
    return tuple(sorted((Rule(part, ends) for part in parts for ends in (False, True)), key=lambda r: r.complexity))


CONTROLS = ("first", "last", "middle")
"""Criteria that look at positions only; `random` is the mean over every plan; `full`, `constant` and `depth` stand
beside."""
DEPTHS = tuple(step / 10 for step in range(11))
"""Relative depths of a fixed choice: 0 for the first blocks, 1 for the last."""
CONTROL, CRITERION, RULE = "control", "criterion", "recommendation"
SLACK = 0.01
"""A simpler rule is kept unless another has so much less mean relative regret."""


@dataclass(frozen=True)
class Setting:
    """One model and one task: the measured truth and every criterion's scores."""

    name: str
    """Of the setting."""
    model: str
    """Settings of one model share the best constant choice."""
    task: str
    """Settings of one task are held out together."""
    truth: Truth
    """Of its sweep."""
    scores: Mapping[str, Sequence[float]]
    """Criterion -> score of each block; only those that scored every block."""


@dataclass(frozen=True)
class Entry:
    """One row of the table: how much a way of choosing loses on each setting and budget."""

    name: str
    """Criterion, rule or control."""
    kind: str
    """criterion, rule or control."""
    relative: Mapping[tuple[str, int], float]
    """(Setting, budget) -> relative regret; only where it is known."""
    complexity: int = 1
    """Things to be explained."""

    def mean(self, budget: int | None = None, without: Collection[str] = ()) -> float | None:
        """Return the mean over settings, each budget of a setting weighing the same; None where nothing is known.

        Args:
            budget: only this one; None takes all.
            without: settings that are not counted.
        """
        kept: dict[str, list[float]] = {}
        for (setting, size), value in self.relative.items():
            if budget in (None, size) and setting not in without:
                kept.setdefault(setting, []).append(value)
        return float(np.mean([np.mean(values) for values in kept.values()])) if kept else None


def budgets_of(setting: Setting) -> tuple[int, ...]:
    """Return 1, 2 and a quarter of the blocks, as far as the sweep measured every plan of that size."""
    wanted = {1, 2, max(1, setting.truth.n_blocks // 4)}
    return tuple(size for size in sorted(wanted) if size in setting.truth.budgets)


def entries(settings: Sequence[Setting], rules: Sequence[Rule] = ()) -> list[Entry]:
    """Return a row for every criterion and rule, then the controls.

    Args:
        settings: where some plan gains something over the floor; others have no relative regret and are left out.
        rules: further ways of choosing.
    """
    judged = [name for name, entry in CRITERIA.items() if entry.needs != "nothing"]
    rows = [Entry(name, "criterion", of_rule(settings, Rule((name,)))) for name in judged]
    rows += [Entry(rule.name, "rule", of_rule(settings, rule), rule.complexity) for rule in rules]
    rows += [Entry(name, "control", of_rule(settings, Rule((name,)))) for name in CONTROLS]
    rows.append(Entry("random", "control", _of_plans(settings, random_regret)))
    rows.append(Entry("full", "control", _of_plans(settings, full_regret)))
    rows.append(Entry("constant", "control", _of_constant(settings)))
    rows.append(Entry("depth", "control", of_depth(settings)))
    return [row for row in rows if row.relative]


def of_rule(settings: Sequence[Setting], rule: Rule) -> dict[tuple[str, int], float]:
    """Return (setting, budget) -> relative regret of a rule's choice, where it was measured."""
    found: dict[tuple[str, int], float] = {}
    for setting in settings:
        for budget in budgets_of(setting):
            choice = rule.choose(setting.scores, budget, setting.truth.n_blocks)
            if choice is None or choice not in setting.truth.scores:
                continue
            lost = regret(setting.truth, choice).relative
            if lost is not None:
                found[setting.name, budget] = lost
    return found


def _of_plans(settings: Sequence[Setting], lost_at: Callable[[Truth, int], float]) -> dict[tuple[str, int], float]:
    places = [(setting, budget) for setting in settings for budget in budgets_of(setting)]
    found = {(setting.name, size): relative(setting.truth, lost_at(setting.truth, size)) for setting, size in places}
    return {place: lost for place, lost in found.items() if lost is not None}


def _of_constant(settings: Sequence[Setting]) -> dict[tuple[str, int], float]:
    """Return the regret of the plan that is best on average over all tasks of a model, in hindsight."""
    found: dict[tuple[str, int], float] = {}
    for model in dict.fromkeys(setting.model for setting in settings):
        own = [setting for setting in settings if setting.model == model and setting.truth.gains]
        for budget in {budget for setting in own for budget in budgets_of(setting)}:
            able = [setting for setting in own if budget in budgets_of(setting)]
            lost = {
                plan: [regret(setting.truth, plan).relative or 0.0 for setting in able]
                for plan in _shared(able, budget)
            }
            best = min(lost, key=lambda plan: float(np.mean(lost[plan])))
            found |= {(setting.name, budget): value for setting, value in zip(able, lost[best], strict=True)}
    return found


def best_depth(settings: Sequence[Setting]) -> float | None:
    """Return at which of `DEPTHS` neighbours lose least on average, of several the deepest; None if unknown."""
    rows = {depth: Entry(f"{depth}", CONTROL, _of_choice(settings, depth)).mean() for depth in DEPTHS}
    known = {depth: lost for depth, lost in rows.items() if lost is not None}
    return min(known, key=lambda depth: (known[depth], -depth), default=None)


def of_depth(settings: Sequence[Setting]) -> dict[tuple[str, int], float]:
    """Return the regret of neighbours at the relative depth that lost least on the settings of all other models.

    Held out, unlike the constant choice: what is known of a model without measuring anything on it.
    """
    found: dict[tuple[str, int], float] = {}
    for model in dict.fromkeys(setting.model for setting in settings):
        depth = best_depth([setting for setting in settings if setting.model != model])
        own = [setting for setting in settings if setting.model == model]
        found |= {} if depth is None else _of_choice(own, depth)
    return found


def _of_choice(settings: Sequence[Setting], depth: float) -> dict[tuple[str, int], float]:
    places = [(setting, budget) for setting in settings for budget in budgets_of(setting)]
    plans = {
        (one.name, budget): (one.truth, neighbours_at(depth, budget, one.truth.n_blocks)) for one, budget in places
    }
    found = {place: regret(truth, plan).relative for place, (truth, plan) in plans.items() if plan in truth.scores}
    return {place: lost for place, lost in found.items() if lost is not None}


def _shared(settings: Sequence[Setting], budget: int) -> list[tuple[int, ...]]:
    return sorted(set.intersection(*(set(setting.truth.plans(budget)) for setting in settings)))


@dataclass(frozen=True)
class HeldOut:
    """A way of choosing, chosen without the setting it is judged on."""

    chosen: Mapping[str, str]
    """Setting -> the simplest of the rows that were best on the settings of other groups."""
    relative: Mapping[tuple[str, int], float]
    """(Setting, budget) -> its relative regret there."""

    @property
    def mean(self) -> float:
        """Mean over settings, each budget of a setting weighing the same."""
        return Entry("held out", "", self.relative).mean() or 0.0


def simplest_of_the_best(rows: Sequence[Entry], without: Collection[str] = ()) -> Entry:
    """Return the simplest row whose mean relative regret is within `SLACK` of the least; of several, the best.

    Args:
        rows: candidates; of equally simple and equally good ones the first.
        without: settings that are not looked at.
    """
    known = [(row, mean) for row in rows if (mean := row.mean(without=without)) is not None]
    least = min(mean for _, mean in known)
    good = [(row.complexity, mean, place) for place, (row, mean) in enumerate(known) if mean <= least + SLACK]
    return known[min(good)[2]][0]


def leave_out(rows: Sequence[Entry], groups: Mapping[str, Collection[str]]) -> HeldOut:
    """Choose a row for each group of settings by the others, and see what it loses there.

    Args:
        rows: candidates, the simplest first; each known on every setting.
        groups: name -> settings left out together: one setting, one task, or all settings of one model; at least two
        groups.
    """
    chosen: dict[str, str] = {}
    lost: dict[tuple[str, int], float] = {}
    for group in groups.values():
        row = simplest_of_the_best(rows, group)
        chosen |= dict.fromkeys(group, row.name)
        lost |= {place: value for place, value in row.relative.items() if place[0] in group}
    return HeldOut(chosen, lost)


def paired_difference(
    one: Mapping[tuple[str, int], float], other: Mapping[tuple[str, int], float], level: float = 0.95
) -> tuple[float, float, float] | None:
    """Return the mean of `other` minus `one` over settings, and its interval (Student's t) of 95 % or another level.

    None below two settings.
    """
    settings: dict[str, list[float]] = {}
    for place in one.keys() & other.keys():
        settings.setdefault(place[0], []).append(other[place] - one[place])
    values = [float(np.mean(differences)) for differences in settings.values()]
    if len(values) < 2:
        return None
    half = (
        float(scipy.stats.t.ppf(0.5 + level / 2, len(values) - 1)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    )
    middle = float(np.mean(values))
    return middle, middle - half, middle + half


@dataclass(frozen=True)
class JudgedChoice:
    """What one way of choosing came to."""

    label: str
    """What a person reads."""
    kind: str
    """criterion, control, or recommendation."""
    choice: Blocks | None
    """Blocks it tunes; None for the mean over plans drawn at random."""
    score: float | None
    """Of the truth, higher is better; None where its choice was not measured."""
    regret: float | None
    """What the best plan of the budget has more; None where its choice was not measured."""
    relative: float | None
    """Regret over what the best of all plans gains over the floor; None where none gains anything."""
    within_chance: bool | None
    """Whether the regret may be chance (`lsf.evidence.study`); None where that is unknown."""


def judge_choice(truth: Truth, label: str, kind: str, choice: Blocks) -> JudgedChoice:
    """Judge one choice; unknown where the sweep does not hold it.

    Raises:
        BadInputError: another plan of its budget is missing, so that the best is not known.
    """
    if choice not in truth.scores:
        return JudgedChoice(label, kind, choice, None, None, None, None)
    found = regret(truth, choice)
    lucky = within_chance(truth, choice)
    return JudgedChoice(label, kind, choice, truth.mean(choice), found.regret, found.relative, lucky)


def judge_choices(truth: Truth, scores: Mapping[str, Sequence[float]], budget: int) -> list[JudgedChoice]:
    """Judge every criterion and control at a budget, the least regret first, what is unknown last.

    Args:
        truth: of the sweep.
        scores: criterion -> score of each block; those without a score for every block are left out by the caller.
        budget: number of blocks.

    Raises:
        BadInputError: the sweep holds no plan of that budget, or one is missing.
    """
    found = []
    for name, entry in CRITERIA.items():
        if name in scores and name != "random":
            kind = CONTROL if entry.needs == "nothing" else CRITERION
            found.append(judge_choice(truth, entry.label, kind, choose(scores[name], budget)))
    lost, all_lost = random_regret(truth, budget), full_regret(truth, budget)
    best = max(truth.mean(blocks) for blocks in truth.plans(budget))
    found.append(JudgedChoice("Drawn at random (mean)", CONTROL, None, best - lost, lost, relative(truth, lost), None))
    whole = tuple(range(truth.n_blocks))
    found.append(
        JudgedChoice("Full fine-tuning", CONTROL, whole, best - all_lost, all_lost, relative(truth, all_lost), None)
    )
    return sorted(found, key=lambda one: (one.regret is None, one.regret or 0.0))
