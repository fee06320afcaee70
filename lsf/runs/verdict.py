"""The verdict on chosen blocks: what they keep of the whole model's gain, at what cost, beside same-size controls."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lsf.runs.comparability import TOO_FEW
from lsf.runs.comparison import (
    CONTROLS,
    Comparison,
    Row,
    columns_apart,
    is_control,
    memory_over,
    over,
    rate_words,
    words_apart,
)
from lsf.runs.controls import control_name
from lsf.runs.result import RunState
from lsf.runs.seeds import ONE_SEED, Estimate, estimate, one_answer, ratio_of_means

EXACT, LOSS = "exact match", "loss"
"""What runs can be judged by."""
SHORT_ANSWERS = 0.1
"""Share of wholly right answers, or of what the whole model gains in them, from which exact match is what runs are
judged by; else the loss is, since answers are hardly ever wholly right."""
TUNE, CHOOSE = "tune", "choose"
"""What a next step can be."""
ROUNDING = 1e-9
"""Below it a difference of scores is that of their last bits: 31/50 - 30/50 is above 1/50, and 11/50 - 10/50 is not."""
BETTER, WORSE, TIED = "better", "worse", "cannot be told apart"
"""How the choice stands to something else; below two common seeds nothing is said (`ONE_SEED`)."""


def told_by(rows: Sequence[Row]) -> str:
    """Return what tells runs apart: `EXACT`, or `LOSS` where no answer can be expected to be right as a whole.

    Args:
        rows: of the runs that are shown together.
    """
    shares = [share for row in rows for share in (row.exact_match_before, row.exact_match_after)]
    known = [share for share in shares if share is not None]
    return LOSS if known and max(known) < SHORT_ANSWERS else EXACT


QUALITY = {EXACT: "exact_match_after", LOSS: "gain"}
"""The column that holds it; higher is better."""


@dataclass(frozen=True)
class Standing:
    """One of the things compared, over its seeds."""

    name: str
    """In words: `blocks 5-6`, `the whole model`, `LoRA on all blocks (r=8)`, `the last 2 blocks`."""
    role: str
    """choice, manual, full, lora, or a control's role."""
    runs: tuple[str, ...]
    """Ids of its runs."""
    share: Estimate | None
    """Mean gain over the floor as a share of the whole model's, over the seeds where both are known; 1 is all of it.
    None where there is no fair reference, or that gains nothing."""
    time: Estimate | None
    """Seconds of tuning over the whole model's."""
    memory: Estimate | None
    """Peak memory over the whole model's."""
    forgetting: Estimate | None
    """Nats per token gained on the base model's own text."""
    apart: str | None = None
    """How the choice stands to it by the score, paired by seed: BETTER, WORSE, TIED or ONE_SEED; None where that cannot
    be said: no common seed, or a fault."""
    notes: tuple[str, ...] = ()
    """What makes the comparison with it less fair than it looks, a sentence each."""


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one choice of blocks."""

    headline: str
    """What it keeps and what that costs, or why that cannot be told; the beginning of the sentence."""
    sentence: str
    """The finding: the headline, and how it stands to the controls of its size."""
    onward: str
    """What to do next, in one sentence."""
    then: str
    """Where that is done: TUNE more runs, or CHOOSE other blocks."""
    score: str
    """What the shares and differences are in: `exact match` or `loss`."""
    choice: Standing
    """The chosen blocks."""
    others: tuple[Standing, ...]
    """Whole model, LoRA on all blocks, and the controls, as far as there are runs."""
    warnings: tuple[str, ...]
    """What makes its numbers less fair than they look."""

    @property
    def standings(self) -> tuple[Standing, ...]:
        """Everything compared, the choice first."""
        return self.choice, *self.others


@dataclass(frozen=True)
class Measure:
    """One of the four numbers of a verdict."""

    name: str
    """Field of `Standing`."""
    label: str
    """Over the number."""
    meaning: str
    """One sentence."""
    write: Callable[[float], str]
    """Writes one number."""


def percent(value: float) -> str:
    """Write a share: `92 %`."""
    return f"{100 * value:.0f} %"


def _times(value: float) -> str:
    return f"{value:.2f} x"


def _nats(value: float) -> str:
    return f"{value:+.3f} nats"


MEASURES = (
    Measure(
        "share",
        "Gain kept",
        "Share of what the whole model gains over the floor, the better of the base model and the best answer that "
        "ignores the prompt; of several seeds mean over mean, with Fieller's interval.",
        percent,
    ),
    Measure("time", "Time", "Seconds of tuning over the whole model's.", _times),
    Measure(
        "memory",
        "Memory",
        "Peak memory of the run over the whole model's; on a CPU counted from tensors where they take less than 64 MB.",
        _times,
    ),
    Measure(
        "forgetting",
        "Forgetting",
        "Rise of the loss on text that the base model wrote itself, per token; 0: nothing was forgotten.",
        _nats,
    ),
)
"""The four numbers, in their order."""


def verdicts(comparison: Comparison) -> tuple[Verdict, ...]:
    """Return one verdict per choice among the runs, in order of appearance.

    A choice are the runs of one plan, method and rate (asked or not) on one model, data and settings over their seeds.
    Its references are those of `compare`, so no share is of a run with a fault. Of several runs of one control and seed
    the one of the least test loss counts, as for the whole model.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    several = columns_apart(comparison.rows)
    for row in comparison.rows:
        if row.role in ("choice", "manual") and not row.all_blocks and _ended(row):
            rate = row.rate_asked if row.rate_asked in ("searched", "default") else row.learning_rate
            key = *_asked(row), row.plan, row.method, rate
            groups.setdefault(key, []).append(row)
    rates = [key[:-1] for key in groups]  # told where one choice was tuned at several
    return tuple(
        _judge(list(_best(group).values()), comparison.rows, _name(group[0], several, rates.count(key[:-1]) > 1))
        for key, group in groups.items()
    )


def _ended(row: Row) -> bool:
    return row.state == RunState.SUCCEEDED or row.fault is not None


def _asked(row: Row) -> tuple[object, ...]:
    return row.model, row.data, row.settings


def _best(rows: Sequence[Row]) -> dict[int | None, Row]:
    """Return one row per seed, that of the least test loss."""
    found: dict[int | None, Row] = {}
    for row in sorted(rows, key=lambda row: math.inf if row.loss_after is None else row.loss_after):
        found.setdefault(row.seed, row)
    return found


def _judge(own: list[Row], rows: Sequence[Row], name: str) -> Verdict:
    first, by_id = own[0], {row.run: row for row in rows}
    kin = [row for row in rows if _ended(row) and _asked(row) == _asked(first)]
    whole = [row for row in kin if row.plan == "full" and row.method == "full"]  # whatever it was made to stand for
    references = [by_id[row.reference] for row in own if row.reference is not None]
    score = _score(references)
    others = [("the whole model", "full", references or whole)]
    lora = [row for row in kin if row.all_blocks and row.bare_method == "lora"]
    for how in dict.fromkeys(str(row.method) for row in lora):  # each with options of its own: `lora (r=8)`
        same = [row for row in lora if row.method == how]
        others.append((how.replace("lora", "LoRA on all blocks", 1), "lora", same))
    controls = {role: [row for row in kin if row.role == role and is_control(row, first)] for role in CONTROLS}
    names = {role: control_name(role, first.n_blocks or 0, first.beside or "") for role in CONTROLS}
    itself = {role: [row for row in same if row.plan == first.plan] for role, same in controls.items()}
    for role, same in controls.items():  # nothing is compared with itself
        others.append((names[role], role, [row for row in same if row.plan != first.plan]))
    choice = _standing(name, first.role or "choice", own, by_id, score)
    beside = [
        _beside(_standing(name, role, list(_best(group).values()), by_id, score), own, group, score)
        for name, role, group in others
        if group
    ]
    warnings = [*_own_warnings(name, own), *_of_seeds(own, choice), *(note for one in beside for note in one.notes)]
    if drawn := len(itself["random"]):
        are = f"{drawn} of {len(controls['random'])} drawn {'is' if drawn == 1 else 'are'}"
        warnings.append(f"{_upper(names['random'])}: {are} the choice itself, and left out.")
    same_as = [names[role] for role, same in itself.items() if same and role != "random"]
    sentence = headline = _headline(choice, own, whole, score)
    if choice.share is not None and not _all_faulty(own):
        sentence += f"; {_against(beside, same_as, first)}"
    then, onward = _onward(choice, beside, own, whole)
    return Verdict(headline, f"{sentence}.", f"Next: {onward}.", then, score, choice, tuple(beside), tuple(warnings))


def _score(references: Sequence[Row]) -> str:
    gains = [gain for row in references if (gain := _gain(row, EXACT)) is not None]
    return EXACT if gains and statistics.fmean(gains) >= SHORT_ANSWERS - ROUNDING else LOSS


def _value(row: Row, score: str) -> float | None:
    """Return a row's score, higher is better."""
    if score == EXACT:
        return row.exact_match_after
    return None if row.loss_after is None else -row.loss_after


def _gain(row: Row, score: str) -> float | None:
    if score == LOSS:
        return row.gain
    after, floor = row.exact_match_after, row.floor_exact_match
    return None if after is None or floor is None else after - floor


def _standing(name: str, role: str, rows: Sequence[Row], by_id: dict[str, Row], score: str) -> Standing:
    pairs = [(row, by_id[row.reference]) for row in rows if row.reference is not None]
    gains = [(_gain(row, score), _gain(full, score)) for row, full in pairs]
    known = [(one, whole) for one, whole in gains if one is not None and whole is not None]
    times = [over(row.tuning_seconds, full.tuning_seconds) for row, full in pairs]

    def of_all(found: Estimate | None) -> Estimate | None:
        return None if found is None else replace(found, lacking=len(rows) - found.n)

    return Standing(
        name,
        role,
        tuple(row.run for row in rows),
        share=of_all(ratio_of_means(known, one_answer(pairs) if score == EXACT else 0.0)),
        time=of_all(estimate(_known(times))),
        memory=of_all(estimate(_known([memory_over(row, full) for row, full in pairs]))),
        forgetting=of_all(estimate(_known([row.forgetting for row in rows]))),
    )


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _beside(standing: Standing, own: Sequence[Row], rows: Sequence[Row], score: str) -> Standing:
    """Say how the choice stands to something else, seed by seed, and what makes that unfair."""
    theirs, mine = _best(rows), {row.seed: row for row in own}
    notes = _notes(standing.name, own[0], list(theirs.values()))
    faulty = any(row.fault is not None for row in (*theirs.values(), *own))
    both = [(mine[seed], theirs[seed]) for seed in mine.keys() & theirs.keys()]
    scores = [(_value(one, score), _value(other, score)) for one, other in both]
    differences = [one - other for one, other in scores if one is not None and other is not None]
    least = one_answer(both) if score == EXACT else 0.0
    found = None if faulty else estimate(differences, least=least + ROUNDING)
    return Standing(**{**vars(standing), "apart": _apart(found), "notes": notes})


def _apart(difference: Estimate | None) -> str | None:
    if difference is None:
        return None
    if difference.low is None or difference.high is None:
        return ONE_SEED
    return BETTER if difference.low > 0 else WORSE if difference.high < 0 else TIED


def _notes(name: str, own: Row, rows: Sequence[Row]) -> tuple[str, ...]:
    notes = []
    for words in dict.fromkeys(row.fault for row in rows if row.fault is not None):
        faulty = [row for row in rows if row.fault == words]
        rates = [row.rate_to_try for row in faulty if row.rate_to_try is not None]
        seeds = f" in {len(faulty)} of {len(rows)} seeds" if len(rows) > 1 else ""
        instead = f" Try the rate {rates[0]:g}." if rates else ""
        notes.append(f"{_upper(name)}: {words}{seeds}; nothing is compared with it.{instead}")
    asked = dict.fromkeys(row.rate_asked for row in rows)
    if any(rate != own.rate_asked for rate in asked):
        theirs = ", ".join(str(rate) for rate in asked)
        notes.append(
            f"The learning rate of {name} was {theirs}, that of the choice {own.rate_asked}; the difference between "
            "them may be due to that."
        )
    elif own.rate_asked == "given" and (rows[0].all_blocks or any(r.learning_rate != own.learning_rate for r in rows)):
        notes.append(
            f"The learning rates of the choice and of {name} were given by hand; the best one often differs between "
            "blocks, so the difference between them may be due to that."
        )
    return tuple(notes)


def _own_warnings(name: str, own: Sequence[Row]) -> list[str]:
    told = []
    for words in dict.fromkeys(row.fault for row in own if row.fault is not None):
        faulty = [row for row in own if row.fault == words]
        rates = [row.rate_to_try for row in faulty if row.rate_to_try is not None]
        instead = f" Try the rate {rates[0]:g}." if rates else ""
        seeds = f" in {len(faulty)} of {len(own)} seeds" if len(own) > 1 else ""
        told.append(f"{_upper(name)}: {words}{seeds}.{instead}")
    if any(row.states_found for row in own):
        told.append(
            "The choice took the states below its blocks from an earlier run; its time leaves out computing them."
        )
    return told


def _of_seeds(own: Sequence[Row], choice: Standing) -> list[str]:
    """Say which seeds the ratios leave out, and why the share has no interval."""
    if choice.share is None or _all_faulty(own):
        return []
    told, lacking = [], sum(row.state == RunState.SUCCEEDED and row.reference is None for row in own)
    if lacking:
        told.append(
            f"Under {lacking} of {len(own)} seeds there is no whole-model run without a fault; the share, time and "
            "memory leave these out."
        )
    if choice.share.n > 1 and choice.share.low is None:
        told.append(
            "The whole model's gain differs so much between seeds that it cannot be told from none; the share of it "
            "has no finite interval."
        )
    return told


def _all_faulty(own: Sequence[Row]) -> bool:
    return all(row.fault is not None for row in own)


def _headline(choice: Standing, own: Sequence[Row], whole: Sequence[Row], score: str) -> str:
    name, keep = _upper(choice.name), "keeps" if own[0].n_blocks == 1 else "keep"
    if _all_faulty(own):
        return f"{name}: {own[0].fault}, so nothing can be said for this choice"
    if choice.share is None:
        return f"{name}{_gained(own)}{_why_no_share(own, whole)}"
    costs = (choice.time, "time"), (choice.memory, "memory")
    cost = " and ".join(f"{value.mean:.2f} x its {words}" for value, words in costs if value is not None)
    told = f"{name} {keep} {percent(choice.share.mean)} of the whole model's gain in {score}"
    return f"{told} ({choice.share.words(percent)})" + (f" at {cost}" if cost else "")


def _gained(own: Sequence[Row]) -> str:
    gains = [row.gain for row in own if row.gain is not None]
    verb = "gains" if own[0].n_blocks == 1 else "gain"
    return f" {verb} {statistics.fmean(gains):.3g} nats over the floor" if gains else ""


def _why_no_share(own: Sequence[Row], whole: Sequence[Row]) -> str:
    lacking = "; the share of the whole model's gain is unknown, "
    faulty = [row for row in whole if row.fault is not None]
    if faulty:
        return f"{lacking}because the whole model's run has a fault ({faulty[0].fault})"
    if any(row.reference is not None for row in own):
        return f"{lacking}because that gains nothing: here full fine-tuning hurts"
    return f"{lacking}because no whole-model run has the same data, seed and steps"


def _against(others: Sequence[Standing], same_as: Sequence[str], own: Row) -> str:
    """Return how the choice stands to the controls of its size, which of them it is, and to LoRA on all blocks."""
    beside = [other for other in others if other.role != "full" or other.apart in (BETTER, TIED)]
    controls = [other for other in beside if other.role in CONTROLS]
    parts = []
    for words, link in ((BETTER, "better than"), (TIED, "cannot be told apart from"), (WORSE, "worse than")):
        if names := [other.name for other in beside if other.apart == words]:
            parts.append(f"{link} {_joined(names)}")
    single = [other for other in beside if other.apart == ONE_SEED]
    if single:
        kept = [
            f"{other.name} {'keep' if other.role in CONTROLS and ' blocks' in other.name else 'keeps'} "
            f"{percent(other.share.mean)}"
            for other in single
            if other.share is not None
        ]
        parts.append(f"{_joined(kept)}, but 1 seed cannot rule out chance" if kept else "1 seed, no interval")
    if same_as:
        parts.append(f"{'it is itself' if own.n_blocks == 1 else 'they are themselves'} {_joined(same_as)}")
    if not controls:
        kind = "other control" if same_as else "control"
        parts.append(f"there is no {kind} of its size, so it is unknown whether other blocks would do as well")
    if not parts:
        parts.append(f"no comparison with {_joined([other.name for other in controls])} holds: each has a fault")
    return "; ".join(parts)


def _onward(choice: Standing, others: Sequence[Standing], own: Sequence[Row], whole: Sequence[Row]) -> tuple[str, str]:
    """Return where the next step is made, and what it is."""
    faulty = next((row for row in (*own, *whole) if row.fault is not None), None)
    if faulty is not None and (faulty in own or choice.share is None):
        what = "the choice" if faulty in own else "the whole model"
        rate = "a lower rate" if faulty.rate_to_try is None else f"the rate {faulty.rate_to_try:g}"
        return TUNE, f"tune {what} again {'with more steps' if faulty.fault == TOO_FEW else f'at {rate}'}"
    if choice.share is None:
        return TUNE, "tune the whole model beside it, with the same data, seed and steps"
    controls = [other for other in others if other.role in CONTROLS]
    if not controls:
        return TUNE, "tune controls of the same size beside it"
    if all(other.apart is None for other in controls):
        return TUNE, "tune its controls again, as advised for each"
    if any(other.apart == ONE_SEED for other in others):
        return TUNE, "tune the same with two more seeds; only then can chance be ruled out"
    worse = [other.name for other in others if other.apart == WORSE]
    if worse:
        return CHOOSE, f"take {worse[0]} instead, or choose by another criterion"
    tied = [other.name for other in controls if other.apart == TIED]
    if tied:
        told = "which blocks are tuned hardly matters here; take the cheapest, or fewer, and compare again with"
        return CHOOSE, f"{told} {tied[0]}"
    return CHOOSE, "try fewer blocks, or keep these"


def _name(row: Row, several: Sequence[str], rate: bool) -> str:
    """Return a choice in words, with what was asked of it and not of all runs compared."""
    name = (row.plan or "the choice") + ("" if row.method in (None, "full") else f" by {row.method}")
    if row.general_share is not None:
        name += f" with {percent(row.general_share)} general data"
    asked = words_apart(row, several)
    if rate:
        asked.append(rate_words(row))
    return f"{name} ({', '.join(asked)})" if asked else name


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _upper(name: str) -> str:
    return name[:1].upper() + name[1:]
