"""The table of the study, from the committed results: regret of every criterion, the controls, and held-out choices."""

from collections.abc import Mapping, Sequence

from benchmarks.evidence_files import Found
from benchmarks.frontier import front_share, time_saved
from benchmarks.settings import waves_of
from lsf.criteria.agreement import rank_correlation
from lsf.criteria.registry import CRITERIA
from lsf.evidence.packed import candidates_of, groups_by
from lsf.evidence.regret import cliff, rank_agreement, regret, seed_agreement
from lsf.evidence.study import (
    Entry,
    Rule,
    Setting,
    budgets_of,
    decided,
    entries,
    leave_out,
    level_with_best,
    of_rule,
    paired_difference,
    simplest_of_the_best,
)
from lsf.evidence.sweep import relative_cost
from lsf.plans.policies import ENDS_FROM, RECOMMENDED

RULE = Rule(RECOMMENDED, ENDS_FROM is not None)
SHOWN_RULES = 6


def print_report(found: Sequence[Found]) -> None:
    """Print what the committed results say, and what is missing."""
    gaining = [one for one in found if one.setting.truth.gains]
    for one in found:
        if one not in gaining:
            print(f"left out: on {one.setting.name} no plan gains over the floor ({one.setting.truth.range:+.3f})")
    if not gaining:
        print("Nothing is measured yet: python benchmarks/evidence.py")
        return
    settings, small = [one.setting for one in gaining], [one.small.setting for one in gaining]
    truths(settings)
    rows = entries(settings, (Rule(("last",), ends=True),))
    regrets([Entry("RECOMMENDED " + RULE.name, "rule", of_rule(small, RULE)), *rows], settings)
    print(f"\nEach row's mean minus that of the rule in the package ({RULE.name}; these tasks also chose it):")
    own = of_rule(small, RULE)
    differences(own, rows)
    tested = waves_of(setting.name for setting in settings)["all tests"]
    there = Entry(RULE.name, "rule", {place: lost for place, lost in own.items() if place[0] in tested})
    print(f"\nThe same on the {len(tested)} pairs that were announced before they were measured, rule unchanged:")
    print(f"it lost {_percent(there.mean(), 0)} % there")
    differences(there.relative, rows)
    agreements(settings, small)
    cost_adjusted(small)
    for pairs, words in ((False, "single criteria"), (True, "single criteria and rank averages of two")):
        candidates = candidates_of(small, pairs)
        print(f"\nCandidates: {words}, with and without both ends from two blocks on: {len(candidates)}. In hindsight:")
        for row in sorted(candidates, key=lambda row: row.mean() or 0.0)[:SHOWN_RULES]:
            print(f"  {row.name:<50}{_percent(row.mean(), 8)}")
        for title in ("task", "model"):
            held_out(title, candidates, rows, groups_by(small, title))
    costs(gaining)


def truths(settings: Sequence[Setting]) -> None:
    """Print per setting what was measured."""
    print(
        f"\n{'setting':<26}{'seeds':>6}{'base':>8}{'full':>8}  best plan per budget; cliff; rho between seeds; missing"
    )
    for setting in settings:
        truth = setting.truth
        told = []
        for budget in budgets_of(setting):
            best = regret(truth, truth.plans(budget)[0]).best
            sure = {True: "", False: " (not decided)", None: " (not known)"}[decided(truth, budget)]
            level = f" ({len(level_with_best(truth, budget))} of {len(truth.plans(budget)) - 1} others level)"
            told.append(f"{budget}: {'-'.join(map(str, best))} {truth.mean(best):.3f}{sure or level}")
        edge, alike = cliff(truth), seed_agreement(truth)
        full = sum(truth.full) / len(truth.full)
        print(
            f"{setting.name:<26}{len(truth.full):>6}{truth.base:>8.3f}{full:>8.3f}  {', '.join(told)}; "
            f"{'-' if edge is None else edge}; {'-' if alike is None else f'{alike:.2f}'}; {len(truth.missing)}"
        )


def regrets(rows: Sequence[Entry], settings: Sequence[Setting]) -> None:
    """Print relative regret in percent: a row per way of choosing, a column per setting and budget, then means."""
    places = [(setting.name, budget) for setting in settings for budget in budgets_of(setting)]
    budgets = sorted({budget for _, budget in places})
    print(
        "\nRelative regret in %: columns are setting@budget; then the mean per budget and over all (a setting weighs 1)"
    )
    for number, (setting, budget) in enumerate(places, start=1):
        print(f"  c{number}: {setting}@{budget}")
    heads = "".join(f"{f'c{number}':>6}" for number in range(1, len(places) + 1))
    print(f"{'':<38}{heads}" + "".join(f"{f'@{budget}':>8}" for budget in budgets) + f"{'mean':>8}")
    ordered = sorted(rows, key=lambda row: (row.kind == "control", row.mean() or 0.0))
    for row in ordered:
        cells = "".join(_percent(row.relative.get(place), 6) for place in places)
        means = "".join(_percent(row.mean(budget), 8) for budget in budgets)
        print(f"{row.kind[:4] + ' ' + row.name:<38}{cells}{means}{_percent(row.mean(), 8)}")
    quarter = {(setting.name, max(1, setting.truth.n_blocks // 4)) for setting in settings}
    told = (Entry(row.name, row.kind, {p: v for p, v in row.relative.items() if p in quarter}) for row in ordered)
    print("Mean at a quarter of the blocks: " + ", ".join(f"{one.name}{_percent(one.mean(), 5)}" for one in told))


def agreements(settings: Sequence[Setting], small: Sequence[Setting]) -> None:
    """Print how criteria rank single blocks: as the truth does, and as they themselves do on the small sample."""
    print("\nSpearman's rho / weighted Kendall tau with the truth of single blocks; rho of small and large samples")
    for name in dict.fromkeys(name for setting in settings for name in setting.scores):
        pairs = [rank_agreement(setting.truth, setting.scores[name]) for setting in settings if name in setting.scores]
        known = [(rho, tau) for rho, tau in pairs if rho is not None and tau is not None]
        both = [(a.scores.get(name), b.scores.get(name)) for a, b in zip(settings, small, strict=True)]
        stable = [rank_correlation(a, b) for a, b in both if a is not None and b is not None]
        told = [rho for rho in stable if rho is not None]
        if known and told:
            rho, tau = (sum(pair[place] for pair in known) / len(known) for place in (0, 1))
            print(f"{name:<20}{rho:>7.2f} /{tau:>6.2f} ;{sum(told) / len(told):>6.2f}  over {len(known)} settings")


def held_out(
    what: str, candidates: Sequence[Entry], rows: Sequence[Entry], groups: Mapping[str, Sequence[str]]
) -> None:
    """Print what a rule chosen without a task or model loses there, and by how much the others lose more."""
    if len(groups) < 2 or not candidates:
        return
    chosen = leave_out(candidates, groups)
    print(f"\nLeave one {what} out: mean relative regret {100 * chosen.mean:.1f} % over {len(groups)} {what}s")
    for name, settings in groups.items():
        print(f"  without {name}: {chosen.chosen[settings[0]]}")
    print(f"  from all: {simplest_of_the_best(candidates).name}; in the package: {RULE.name}")
    print("  Each row's mean minus the held-out choice's:")
    differences(chosen.relative, rows)


def differences(own: Mapping[tuple[str, int], float], rows: Sequence[Entry]) -> None:
    """Print by how much each row loses more, paired over settings."""
    print("  in points of %, with the 95 % interval over settings (paired, Student's t)")
    for row in sorted(rows, key=lambda row: row.mean() or 0.0):
        difference = paired_difference(own, row.relative)
        if difference is not None:
            middle, low, high = (100 * value for value in difference)
            print(f"    {row.name:<32}{middle:>8.1f}  [{low:.1f}, {high:.1f}]")


def cost_adjusted(settings: Sequence[Setting]) -> None:
    """Print what each way of choosing saves while it loses at most 10 % of full's gain, and its share of the front.

    Its choices are those of the budgets of the study; cost is that of `relative_cost`, over the whole model's.
    """
    print(
        "\nCost saved where at most 10 % of full's gain is lost (settings where that holds); share of the front's area"
    )
    names = [*dict.fromkeys(name for setting in settings for name in setting.scores)]
    for name in names:
        saved, shares = [], []
        for setting in settings:
            truth, rule = setting.truth, Rule((name,))
            whole = relative_cost(None, truth.n_blocks)
            prices = {plan: relative_cost(plan, truth.n_blocks) / whole for plan in truth.scores}
            picked = [rule.choose(setting.scores, budget, truth.n_blocks) for budget in budgets_of(setting)]
            choices = [plan for plan in picked if plan is not None]
            saved.append(time_saved(truth, prices, choices, 0.1) if choices else None)
            shares.append(front_share(truth, prices, choices) if choices else None)
        good, known = ([value for value in values if value is not None] for values in (saved, shares))
        told = "-" if not good else f"{100 * sum(good) / len(good):.0f} %"
        print(f"  {name:<20}{told:>6} ({len(good)} of {len(settings)}){100 * sum(known) / max(1, len(known)):>7.0f} %")


def costs(found: Sequence[Found]) -> None:
    """Print what each kind of measurement costs beside one full fine-tune of the study's length."""
    print("\nWall seconds of one analysis over those of one full fine-tune (examples read); machine shared")
    for one in found:
        told = ", ".join(f"{need} {share:.2f} ({one.small.examples[need]})" for need, share in one.small.cost.items())
        print(f"  {one.setting.name}: full {one.full_seconds:.1f} s; {told}")
    needs = {CRITERIA[name].needs for name in RECOMMENDED}
    shares = [sum(one.small.cost[need] for need in needs) for one in found]
    mean, most = 100 * sum(shares) / len(shares), 100 * max(shares)
    print(f"Cost of the recommendation: {mean:.1f} % of a full fine-tune on average, at most {most:.1f} %")


def _percent(value: float | None, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{100 * value:>{width}.1f}"
