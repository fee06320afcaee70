"""Which rule recommends on a model, and what is known of it there: the study's, unless own sweeps say otherwise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis
from lsf.data.reading import IN_MEMORY
from lsf.evidence.own import compared_criteria, own_evidence, own_sweeps
from lsf.evidence.packed import (
    OutcomeElsewhere,
    RecommendationRecord,
    beyond_study,
    elsewhere,
    gaining,
    packed_evidence,
    words,
)
from lsf.evidence.real import real_budgets, real_record, real_words, spacing
from lsf.evidence.study import Entry, Rule, best_depth, of_rule, paired_difference
from lsf.plans.plan import Plan
from lsf.plans.policies import (
    ENDS_FROM,
    FIXED_DEPTH,
    RECOMMENDED,
    check_budget,
    plan_by_hand,
    recommended_plan,
    spaced_plan,
)
from lsf.plans.tries import neighbours_at

LEAST_PAIRS = 5
"""Data sets that one model was swept on before another rule may take the place of the study's on that model."""


@dataclass(frozen=True)
class StandingRule:
    """The rule that recommends on one model, and why it is this one."""

    criteria: tuple[str, ...] = RECOMMENDED
    """One criterion, or several whose ranks are averaged."""
    why: str | None = None
    """A sentence; None where no sweep of the user's own is of this model."""

    @property
    def ends_from(self) -> int | None:
        """From so many blocks on, both ends of the model; None: the criterion decides."""
        return ENDS_FROM if self.criteria == RECOMMENDED else None


def standing_rule(weights: str | None) -> StandingRule:
    """Return the rule for a model: the study's, unless own sweeps of these weights show that another loses less.

    That takes sweeps on `LEAST_PAIRS` data sets, and a paired interval of the difference in relative regret that
    excludes zero: of 95 % over all rules compared (Bonferroni), Student's t over data sets, each budget weighing the
    same. Sweeps of parts of one file, or of it by other templates, are no independent cases: their mean is one.

    Args:
        weights: SHA-256 of the model's weights; None where it is unknown.
    """
    pairs = gaining([one for one in own_evidence() if weights is not None and one.weights == weights])
    kept = " and ".join(CRITERIA[name].label for name in RECOMMENDED)
    if not pairs:
        return StandingRule()
    sources = _sources()
    n_sources = len({sources[pair.name] for pair in pairs})
    sweeps = f"{len(pairs)} sweep{'' if len(pairs) == 1 else 's'} of this model"
    if n_sources < len(pairs):
        sweeps += f" on {n_sources} data set{'' if n_sources == 1 else 's'}"
    if n_sources < LEAST_PAIRS:
        needed = f"{LEAST_PAIRS} are" if n_sources == len(pairs) else f"sweeps on {LEAST_PAIRS} data sets are"
        return StandingRule(
            why=f"The rule stays the study's, {kept}: you have {sweeps}, and {needed} needed to weigh another rule "
            "against it."
        )
    ours = _by_source(of_rule(pairs, Rule(RECOMMENDED, ENDS_FROM is not None)), sources)
    others = {
        name: _by_source(of_rule(pairs, Rule((name,))), sources)
        for name in compared_criteria()
        if (name,) != RECOMMENDED
    }
    whole = {name: lost for name, lost in others.items() if lost.keys() == ours.keys()}
    level = 1 - 0.05 / max(1, len(whole))
    gains = {name: gain for name, lost in whole.items() if (gain := paired_difference(lost, ours, level)) is not None}
    better = [name for name, (_, low, _) in gains.items() if low > 0]
    told = f"over your {sweeps} (95 % interval over all {len(whole)} rules compared"
    if better:
        name = min(better, key=lambda one: Entry(one, "", whole[one]).mean() or 0.0)
        middle, low, high = (100 * value for value in gains[name])
        return StandingRule(
            (name,),
            f"The rule is {CRITERIA[name].label} in place of the study's, {kept}: it lost {middle:.1f} % less of what "
            f"the best plan gains {told}: {low:.1f} to {high:.1f} %).",
        )
    near = max(gains, key=lambda one: gains[one][0])
    middle, low, high = (100 * value for value in gains[near])
    return StandingRule(
        why=f"The rule stays the study's, {kept}: no other lost less beyond chance {told}; the closest, "
        f"{CRITERIA[near].label}, {middle:.1f} %: {low:.1f} to {high:.1f} %)."
    )


def _sources() -> dict[str, str]:
    """Return own sweep -> the data set it is of, by its name; of data in memory, which have none, the sweep itself."""
    named = {one.name: one.sweep.spec.data for one in own_sweeps()}
    return {name: name if data == IN_MEMORY else data for name, data in named.items()}


def _by_source(lost: Mapping[tuple[str, int], float], sources: Mapping[str, str]) -> dict[tuple[str, int], float]:
    """Return (data set, budget) -> mean over its sweeps."""
    found: dict[tuple[str, int], list[float]] = {}
    for (name, budget), value in lost.items():
        found.setdefault((sources[name], budget), []).append(value)
    return {place: fmean(values) for place, values in found.items()}


def recommended_here(analysis: Analysis, budget: int) -> Plan:
    """Return the plan that is recommended for a number of blocks on this model.

    By the rule that stands for it. On a model that neither the study nor an own sweep holds it is a choice that is
    fixed beforehand, since no rule is shown to lose less there: several blocks are evenly spaced where that lost least
    on real models; else neighbours at the relative depth that lost least on the small ones.

    Raises:
        PlanError: see `lsf.plans.policies.recommended_plan`.
    """
    if not is_unproven(analysis):
        return rule_plan(analysis, budget)
    held, depth = spacing(budget), best_depth(gaining(packed_evidence()))
    if held is not None and held.stands:
        plan, why = spaced_plan(analysis, budget), held.reason
    elif depth is not None:
        check_budget(budget, analysis.model.n_blocks)
        named = plan_by_hand(analysis, neighbours_at(depth, budget, analysis.model.n_blocks))
        plan = replace(named, policy=FIXED_DEPTH)
        why = (
            f"at the relative depth {depth:g}, which lost least on the small models; it measures nothing on this one, "
            "where no rule is shown to help; trying a few depths measures"
        )
    else:
        return rule_plan(analysis, budget)
    return replace(plan, reasons=dict.fromkeys(plan.reasons, why))


def rule_plan(analysis: Analysis, budget: int) -> Plan:
    """Return the plan of the rule that stands for this model; its reasons say where it is not shown to help.

    Raises:
        PlanError: see `lsf.plans.policies.recommended_plan`.
    """
    standing = standing_rule(analysis.weights)
    plan = recommended_plan(analysis, budget, standing.criteria)
    if standing.criteria == RECOMMENDED:
        return _not_shown_to_help(plan) if is_unproven(analysis) else plan
    return replace(plan, reasons={block: f"{reason}. {standing.why}" for block, reason in plan.reasons.items()})


def _not_shown_to_help(plan: Plan) -> Plan:
    """Return a plan whose reasons say that nothing shows such a choice to help on the model."""
    doubt = ", which is not shown to help on models outside of the study; trying a few depths measures"
    return replace(plan, reasons={block: f"{reason}{doubt}" for block, reason in plan.reasons.items()})


def is_unproven(analysis: Analysis) -> bool:
    """Say whether the recommendation was never shown to help on such a model: the study has not it, nor own sweeps."""
    own = any(analysis.weights is not None and one.weights == analysis.weights for one in own_evidence())
    return not own and beyond_study(analysis.model.name) is not None


def model_words(analysis: Analysis, budget: int) -> tuple[str, bool] | None:
    """Say what is known of the recommendation on this very model, beyond the study's record.

    Args:
        analysis: of the model.
        budget: number of blocks.

    Returns:
        The sentence, and whether it was measured: what own sweeps of this model found at the budget, or the caveat
        that it was not measured here. None where the study holds the model and no own sweep does.
    """
    own = [one for one in own_evidence() if analysis.weights is not None and one.weights == analysis.weights]
    standing = standing_rule(analysis.weights)
    rows = elsewhere(own, standing.criteria, standing.ends_from, budget)
    blocks = f"{budget} block{'' if budget == 1 else 's'}"
    if not rows:
        real = () if own else real_budgets(analysis.weights)
        if budget in real:
            return real_words(analysis.weights, budget) or "", True
        if real:
            nearest = min(real, key=lambda size: abs(size - budget))
            return f"At {blocks} nothing was measured on this model. {real_words(analysis.weights, nearest)}", False
        beyond = beyond_study(analysis.model.name)
        if beyond is None or not own:
            return None if beyond is None else (" ".join(filter(None, (beyond, real_record()))), False)
        sizes = ", ".join(map(str, sorted({size for one in own for size in one.setting.truth.budgets})))
        return (
            f"Your own sweeps of this model hold every plan of size {sizes}, not of {blocks}: what is recommended at "
            "that size was not measured on this model.",
            False,
        )
    if len(rows) == 1:
        one = rows[0]
        return (
            f"Your own sweep of this model on {one.task}, at {blocks}: the rule named {words(one.choice)} and lost "
            f"{_share(one.relative)} of the best plan's gain against {words(one.best)}; at random "
            f"{_share(one.by_lot)}.{_undecided(rows)}",
            True,
        )
    each = ", ".join(f"{one.task} {_share(one.relative)} (best: {words(one.best)})" for one in rows)
    mean, chance = (sum(getattr(one, name) or 0.0 for one in rows) / len(rows) for name in ("relative", "by_lot"))
    return (
        f"Your {len(rows)} own sweeps of this model, at {blocks}: the rule lost {_share(mean)} of what the best "
        f"plan gains, on average; at random {_share(chance)}. Lost on {each}."
        f"{_undecided(rows)}",
        True,
    )


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.1f} %"


def _undecided(rows: Sequence[OutcomeElsewhere]) -> str:
    unsure = [one.task for one in rows if not one.decided]
    where = f" on {', '.join(unsure)}" if len(rows) > 1 else ""
    return f" The seeds do not decide between these plans{where}." if unsure else ""


def trust_words(analysis: Analysis, budget: int, record: RecommendationRecord) -> str:
    """Say why the standing rule is trusted, and what was measured of it on this model.

    Args:
        analysis: of the model.
        budget: number of blocks.
        record: of the study's rule.
    """
    standing = standing_rule(analysis.weights)
    text = (
        f"where the truth was measured ({record.pairs}) it lost {100 * record.mean:.1f} % of what the best plan gains, "
        f"chance {100 * record.random:.1f} %."
    )
    if standing.criteria != RECOMMENDED:
        text = f"on this model it takes the place of the study's rule. {standing.why}"
    told = model_words(analysis, budget)
    return text + (f" {told[0]}" if told is not None else "")
