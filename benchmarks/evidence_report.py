"""The table of the study, from the committed results: regret of every criterion, the controls, and held-out choices."""

from collections.abc import Sequence

from benchmarks.evidence_files import Found
from lsf.compare.regret import cliff, decided, rank_agreement, regret, seed_agreement
from lsf.compare.study import Entry, Site, budgets_of, entries, leave_one_out, paired_difference

COMBINATIONS = ("probe+first_order_drop", "probe+deviation", "probe+gradient_norm", "semantic_loss+first_order_drop")
"""Rank averages tried beside the criteria."""


def print_report(found: Sequence[Found]) -> None:
    """Print what the committed results say, and what is missing."""
    sites = [one.site for one in found]
    gaining = [site for site in sites if site.truth.range > 0]
    for site in sites:
        if site not in gaining:
            print(f"left out: on {site.name} full fine-tuning gains nothing ({site.truth.range:+.3f})")
    if not gaining:
        print("Nothing is measured yet: python benchmarks/evidence.py")
        return
    truths(gaining)
    rows = entries(gaining, COMBINATIONS)
    regrets(rows, gaining)
    agreements(gaining)
    held_out(rows, gaining)
    costs(found)


def truths(sites: Sequence[Site]) -> None:
    """Print per site what was measured."""
    print(f"\n{'site':<26}{'seeds':>6}{'base':>8}{'full':>8}  best plan per budget; cliff; rho between seeds; missing")
    for site in sites:
        truth = site.truth
        told = []
        for budget in budgets_of(site):
            best = regret(truth, truth.plans(budget)[0]).best
            sure = {True: "", False: " (not decided)", None: " (1 seed)"}[decided(truth, budget)]
            told.append(f"{budget}: {'-'.join(map(str, best))} {truth.mean(best):.3f}{sure}")
        edge, alike = cliff(truth), seed_agreement(truth)
        full = sum(truth.full) / len(truth.full)
        print(
            f"{site.name:<26}{len(truth.full):>6}{truth.base:>8.3f}{full:>8.3f}  {', '.join(told)}; "
            f"{'-' if edge is None else edge}; {'-' if alike is None else f'{alike:.2f}'}; {len(truth.missing)}"
        )


def regrets(rows: Sequence[Entry], sites: Sequence[Site]) -> None:
    """Print relative regret in percent: a row per way of choosing, a column per site and budget, then means."""
    places = [(site.name, budget) for site in sites for budget in budgets_of(site)]
    budgets = sorted({budget for _, budget in places})
    print("\nRelative regret in %: columns are site@budget; then the mean per budget and over all")
    for number, (site, budget) in enumerate(places, start=1):
        print(f"  c{number}: {site}@{budget}")
    heads = "".join(f"{f'c{number}':>6}" for number in range(1, len(places) + 1))
    print(f"{'':<32}{heads}" + "".join(f"{f'@{budget}':>8}" for budget in budgets) + f"{'mean':>8}")
    ordered = sorted(rows, key=lambda row: (row.kind == "control", row.mean() or 0.0))
    for row in ordered:
        cells = "".join(_percent(row.relative.get(place), 6) for place in places)
        means = "".join(_percent(row.mean(budget), 8) for budget in budgets)
        print(f"{row.kind[:4] + ' ' + row.name:<32}{cells}{means}{_percent(row.mean(), 8)}")


def agreements(sites: Sequence[Site]) -> None:
    """Print the rank correlation of every criterion with the truth of single blocks."""
    print("\nSpearman's rho / weighted Kendall tau with the truth of single blocks, mean over sites")
    for name in dict.fromkeys(name for site in sites for name in site.scores):
        pairs = [rank_agreement(site.truth, site.scores[name]) for site in sites if name in site.scores]
        known = [(rho, tau) for rho, tau in pairs if rho is not None and tau is not None]
        if known:
            rho, tau = (sum(pair[place] for pair in known) / len(known) for place in (0, 1))
            print(f"{name:<20}{rho:>7.2f} /{tau:>6.2f}  over {len(known)} sites")


def held_out(rows: Sequence[Entry], sites: Sequence[Site]) -> None:
    """Print what a choice made without the site loses there, and by how much the controls lose more."""
    names = [site.name for site in sites]
    everywhere = [row for row in rows if row.kind != "control" and {site for site, _ in row.relative} == set(names)]
    if len(names) < 2 or not everywhere:
        return
    chosen = leave_one_out(everywhere, names)
    print(f"\nLeave one task out: mean relative regret {100 * chosen.mean:.1f} % over {len(names)} tasks")
    for site in names:
        print(f"  {site}: {chosen.chosen[site]}")
    print("each row's mean regret minus the held-out choice's, in points of %, 95 % interval over tasks:")
    for row in sorted(rows, key=lambda row: row.mean() or 0.0):
        difference = paired_difference(chosen.relative, row.relative)
        if difference is not None:
            middle, low, high = (100 * value for value in difference)
            print(f"  {row.name:<32}{middle:>8.1f}  [{low:.1f}, {high:.1f}]")


def costs(found: Sequence[Found]) -> None:
    """Print what each kind of measurement costs beside one full fine-tune of the study's length."""
    print("\nSeconds of one analysis per need over those of one full fine-tune's steps (measured, machine shared)")
    for one in found:
        told = ", ".join(f"{need} {seconds / one.full_seconds:.2f}" for need, seconds in one.seconds.items())
        print(f"  {one.site.name}: full {one.full_seconds:.1f} s; {told}")


def _percent(value: float | None, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{100 * value:>{width}.1f}"
