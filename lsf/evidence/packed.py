"""What was measured elsewhere, packed with the package, and how the recommended rule did there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lsf.criteria.registry import CRITERIA
from lsf.errors import BadInputError
from lsf.evidence.regret import DIGITS, Blocks, Truth, random_regret, regret, relative
from lsf.evidence.study import Entry, Rule, Setting, budgets_of, candidate_rules, decided, entries, leave_out, of_rule
from lsf.files import read_json, write_records
from lsf.plans.plan import format_blocks
from lsf.plans.policies import ENDS_FROM, RECOMMENDED

PACKED = Path(__file__).parent / "measured.json"
"""Written by `python benchmarks/evidence.py --pack` from the files under benchmarks/evidence."""
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Measured:
    """One model and task of the study."""

    setting: Setting
    """Truth, and the scores of the criteria on the small sample that a recommendation reads."""
    metric: str
    """exact_match or loss; the truth's scores are the metric, a loss turned round."""
    steps: int
    """Of every run."""
    examples: Mapping[str, int]
    """Need -> examples read for it."""
    cost: Mapping[str, float]
    """Need -> wall seconds of an analysis of it over those of one full fine-tune."""
    announced: bool = False
    """True where the recommended rule was made, and this pair named, before anything was measured on it."""
    weights: str | None = None
    """SHA-256 of the model's weights, of a sweep of the user's own; None for a pair of the study."""


def load_evidence(path: Path = PACKED) -> tuple[Measured, ...]:
    """Read what is packed.

    Raises:
        BadInputError: the file is missing or is of another schema version.
    """
    value = read_json(path, "the study's results")
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise BadInputError(f"{path} has schema_version {version}; results of schema_version 1 were expected.")
    return tuple(_measured(one) for one in value["settings"])


def beyond_study(model: str) -> str | None:
    """Return what must be said of the recommendation on a model that the study does not hold; None where it does.

    Args:
        model: its name, as an analysis has it.
    """
    if model in {one.setting.model for one in packed_evidence()}:
        return None
    return (
        f"{model} is none of the study's models, which have a few million parameters at most: whether what it "
        "recommends holds here was not measured. The page Evidence can measure it."
    )


@cache
def packed_evidence() -> tuple[Measured, ...]:
    """Return what is packed with the package, read once."""
    return load_evidence()


def bundled_lessons() -> dict[str, Measured]:
    """Return lesson -> what was measured of it on the bundled model."""
    return {one.setting.task: one for one in packed_evidence() if one.setting.model == "bundled"}


def pack(settings: Sequence[Measured], path: Path = PACKED) -> None:
    """Write results compactly, a line per setting."""
    write_records(path, {"schema_version": SCHEMA_VERSION, "settings": [_plain(one) for one in settings]})


def _plain(one: Measured) -> dict[str, Any]:
    truth = one.setting.truth
    plans = [[list(blocks), [round(score, DIGITS) for score in scores]] for blocks, scores in truth.scores.items()]
    return {
        "name": one.setting.name,
        "model": one.setting.model,
        "task": one.setting.task,
        "metric": one.metric,
        "steps": one.steps,
        "examples": dict(one.examples),
        "n_blocks": truth.n_blocks,
        "base": round(truth.base, DIGITS),
        "prior": None if truth.prior is None else round(truth.prior, DIGITS),
        "full": [round(score, DIGITS) for score in truth.full],
        "plans": plans,
        "missing": [[list(blocks), reason] for blocks, reason in truth.missing.items()],
        "scores": {name: [float(f"{score:.6g}") for score in scores] for name, scores in one.setting.scores.items()},
        "cost": {need: round(share, 3) for need, share in one.cost.items()},
        "announced": one.announced,
    }


def _measured(value: Mapping[str, Any]) -> Measured:
    truth = Truth(
        value["n_blocks"],
        value["base"],
        tuple(value["full"]),
        {tuple(blocks): tuple(scores) for blocks, scores in value["plans"]},
        {tuple(blocks): reason for blocks, reason in value["missing"]},
        value.get("prior"),
    )
    setting = Setting(value["name"], value["model"], value["task"], truth, value["scores"])
    announced = value.get("announced", False)
    return Measured(setting, value["metric"], value["steps"], value["examples"], value["cost"], announced)


def shown(score: float, metric: str) -> str:
    """Write a score of a truth as its metric is read: exact match as it is, a loss the right way round."""
    return f"{-score:.3f} nats" if metric == "loss" else f"{score:.2f}"


def words(blocks: Blocks) -> str:
    """Write blocks for people: `block 3`, `blocks 0, 7`."""
    return f"block{'s' if len(blocks) > 1 else ''} {format_blocks(blocks)}"


TOO_DEAR = ("nothing", "runs")
"""Needs of criteria that are no candidates of a recommendation: controls, and what costs about a full fine-tune."""
AFFORDABLE: dict[str, float] = {
    "forward": 1 / 4,
    "vocabulary": 1 / 4,
    "states": 1 / 4,
    "backward": 1 / 12,
    "per_example": 1 / 12,
    "kernel": 1 / 24,
    "trial_step": 1 / 24,
    "weights": 1 / 24,
    "nothing": 1 / 24,
}
"""Need -> examples of the small sample over those that the steps of one run see: as many as cost about 8 % of a full
fine-tune, counting a forward pass as 1, forward and backward as 3, a trial step as 6. Short runs cost more."""
LEAST, MOST = 8, 200
"""Examples of a sample."""


def sample_sizes(seen: int) -> dict[str, int]:
    """Return need -> examples that a recommendation reads for it, where the steps of one run see so many."""
    return {need: min(MOST, max(LEAST, int(share * seen))) for need, share in AFFORDABLE.items()}


@dataclass(frozen=True)
class Failing:
    """A model on whose tasks a rule did worse than chance."""

    model: str
    """Its name in the study."""
    mean: float
    """Relative regret of the rule there."""
    random: float
    """That of plans drawn at random."""


@dataclass(frozen=True)
class RecommendationRecord:
    """What a rule lost, as relative regret, each setting weighing the same."""

    n_sites: int
    """Pairs of a model and a task with known regret."""
    n_models: int
    """Different models among them."""
    n_tasks: int
    """Different tasks among them."""
    mean: float
    """Of the rule."""
    worst: float
    """Of the rule, on any setting and budget."""
    worst_site: str
    """That setting."""
    without_task: float
    """Of the rules chosen without the task they are judged on."""
    without_model: float
    """Of the rules chosen without the model they are judged on."""
    first: float
    """Of the first blocks."""
    last: float
    """Of the last blocks."""
    random: float
    """Of plans drawn at random."""
    n_announced: int
    """Pairs that were named after the rule was made and before they were measured."""
    announced: float | None
    """Of the rule on those; None where there are none."""
    announced_random: float | None
    """Of plans drawn at random on those."""
    failing: tuple[Failing, ...] = ()
    """Models on which it lost more than plans drawn at random."""
    n_own: int = 0
    """Pairs among them that the user measured on this machine."""

    @property
    def pairs(self) -> str:
        """How many pairs of the study, and how many of the user's own beside them, in words."""
        own = f" and {self.n_own} of your own" if self.n_own else ""
        return f"{self.n_sites - self.n_own} measured pairs of a model and a task{own}"


@dataclass(frozen=True)
class OutcomeElsewhere:
    """What the rule would have chosen on one setting at one budget."""

    model: str
    """Of the setting."""
    task: str
    """Of the setting."""
    choice: Blocks
    """Of the rule."""
    best: Blocks
    """Of the sweep."""
    relative: float | None
    """Relative regret."""
    by_lot: float | None
    """Relative regret of plans drawn at random."""
    decided: bool | None
    """Whether plans of the budget differ beyond chance."""


def gaining(settings: Sequence[Measured]) -> list[Setting]:
    """Return the settings where some plan gains something over the floor, so that relative regret is known."""
    return [one.setting for one in settings if one.setting.truth.gains]


def candidates_of(settings: Sequence[Setting], pairs: bool = False) -> list[Entry]:
    """Return the candidates of a recommendation that are known on every setting, the simplest first.

    Args:
        settings: with scores on the samples that a recommendation can afford.
        pairs: rank averages of two criteria too.
    """
    names = [name for name, entry in CRITERIA.items() if entry.needs not in TOO_DEAR]
    rules = [rule for rule in candidate_rules(names) if pairs or len(rule.criteria) == 1]
    wanted = {(setting.name, budget) for setting in settings for budget in budgets_of(setting)}
    by_name = {row.name: row for row in entries(settings, rules) if row.kind == "rule"}
    return [row for rule in rules if (row := by_name.get(rule.name)) and set(row.relative) == wanted]


def groups_by(settings: Sequence[Setting], what: str) -> dict[str, list[str]]:
    """Return task or model -> names of its settings."""
    groups: dict[str, list[str]] = {}
    for setting in settings:
        groups.setdefault(getattr(setting, what), []).append(setting.name)
    return groups


def record_of(settings: Sequence[Measured], criteria: tuple[str, ...], ends_from: int | None) -> RecommendationRecord:
    """Return how a rule and its controls did; the settings must hold at least two tasks and two models."""
    known = gaining(settings)
    rows = {row.name: row for row in entries(known)}
    own = Entry("", "rule", of_rule(known, Rule(criteria, ends_from is not None)))
    candidates = candidates_of(known)
    seen = [one.setting.name for one in settings if not one.announced]
    held_out = {what: leave_out(candidates, groups_by(known, what)).mean for what in ("task", "model")}
    return RecommendationRecord(
        n_sites=len(known),
        n_models=len({setting.model for setting in known}),
        n_tasks=len({setting.task for setting in known}),
        mean=own.mean() or 0.0,
        worst=max(own.relative.values(), default=0.0),
        worst_site=max(own.relative, key=lambda place: own.relative[place])[0],
        without_task=held_out["task"],
        without_model=held_out["model"],
        first=rows["first"].mean() or 0.0,
        last=rows["last"].mean() or 0.0,
        random=rows["random"].mean() or 0.0,
        n_announced=sum(setting.name not in seen for setting in known),
        announced=own.mean(without=seen),
        announced_random=rows["random"].mean(without=seen),
        failing=_failing(known, own, rows["random"]),
        n_own=sum(one.weights is not None and one.setting.truth.gains for one in settings),
    )


def _failing(settings: Sequence[Setting], own: Entry, lot: Entry) -> tuple[Failing, ...]:
    found = []
    for model, names in groups_by(settings, "model").items():
        others = [setting.name for setting in settings if setting.name not in names]
        mean, random = (row.mean(without=others) for row in (own, lot))
        if mean is not None and random is not None and mean > random:
            found.append(Failing(model, mean, random))
    return tuple(found)


@cache
def packed_record() -> RecommendationRecord:
    """Return the record of the package's own rule on the packed evidence, computed once."""
    return record_of(packed_evidence(), RECOMMENDED, ENDS_FROM)


def elsewhere(
    settings: Sequence[Measured], criteria: tuple[str, ...], ends_from: int | None, budget: int
) -> list[OutcomeElsewhere]:
    """Return the rule's choice on every setting whose sweep holds all plans of the budget."""
    found, rule = [], Rule(criteria, ends_from is not None)
    for setting in gaining(settings):
        truth = setting.truth
        choice = rule.choose(setting.scores, budget, truth.n_blocks) if budget in truth.budgets else None
        if choice is None or choice not in truth.scores:
            continue
        lost, lot = regret(truth, choice), relative(truth, random_regret(truth, budget))
        found.append(
            OutcomeElsewhere(setting.model, setting.task, choice, lost.best, lost.relative, lot, decided(truth, budget))
        )
    return found


def rule_words(criteria: tuple[str, ...], ends_from: int | None) -> str:
    """Say the rule in a sentence."""
    labels = [CRITERIA[name].label for name in criteria]
    by = f"with the highest {labels[0]}" if len(labels) == 1 else f"with the best mean rank by {' and '.join(labels)}"
    text = f"The rule: the block, or range of neighbouring blocks, {by}"
    return f"{text}; from {ends_from} blocks on, both ends of the model." if ends_from is not None else f"{text}."
