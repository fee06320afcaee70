"""What is wrong with a run, and what makes runs less comparable than a table makes them look."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lsf.data.contents import options_in
from lsf.data.encode import AS_TEXT
from lsf.data.report import texts_in_words
from lsf.methods.optimization import rounded
from lsf.runs.differences import length_of
from lsf.runs.result import RunResult, RunState, SearchTrial
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run
from lsf.wording import counted

FORGETS = 1.0
"""Nats per token on the base model's own text beyond which a run has forgotten too much to stand for its choice."""
LOST = ("DivergedError", "NoRateError")
"""Failures by which the loss diverged."""
APART = 1.5
"""Factor beyond which a rate differs from the default enough for that to be offered."""
STEP = 3.0
"""Factor to the rate offered where the default was used, or lies the wrong way."""
HARDLY = 0.1
"""Nats per token of forgetting below which a run that learned nothing hardly moved: its rate is too low rather than too
high."""
TOO_FEW = "below the floor, too few steps"
"""Of a run that beats the base model, which its rate has not wrecked."""


def of_text(group: Sequence[Run], rendering: str | None = None) -> bool:
    """Say whether runs learn plain text, in which no answer can be right as a whole.

    Args:
        group: runs on the same data.
        rendering: how an analysis of the same data told its rows to be rendered; None where there is none.
    """
    told = next((run.result.rendering for run in group if run.result is not None and run.result.rendering), rendering)
    return told == AS_TEXT


@dataclass(frozen=True)
class Fault:
    """Why a run's numbers do not stand for what it tunes."""

    words: str
    """In a few words, for its row: `diverged`, `below the floor`, `forgot 14.9 nats`, or `TOO_FEW`."""
    rate_to_try: float | None
    """AdamW's peak rate to try instead; None where the run's own is not known, or is not to blame."""


def fault_of(result: RunResult | None) -> Fault | None:
    """Return what is wrong with a run; None where nothing is, or where that is not known.

    Below the floor: the test loss is above the better of base model and prior, and exact match is not above theirs. In
    results before 2026-11-28, which have no prior, the base model alone is the floor. One that moved at about
    the default rate, forgot no more than it may, and beats the base model was on its way: it needs more steps.
    """
    if result is None:
        return None
    if result.failure in LOST:
        return Fault("diverged", _to_try(result, too_much=True))
    forgot = forgetting(result) or 0.0
    if is_below_floor(result) and HARDLY < forgot <= FORGETS and _is_near_default(result) and _beats_base(result):
        return Fault(TOO_FEW, None)
    words = ["below the floor"] if is_below_floor(result) else []
    words += [f"forgot {forgot:.1f} nats"] if forgot > FORGETS else []
    return Fault(", ".join(words), _to_try(result, _too_much(result))) if words else None


def forgetting(result: RunResult) -> float | None:
    """Return what the loss on the base model's own text gained, in nats per token; None where it is not known."""
    before, after = result.before, result.after
    if before is None or after is None or before.general_loss is None or after.general_loss is None:
        return None
    return after.general_loss - before.general_loss


def floor_loss(result: RunResult) -> float | None:
    """Return the loss that counts as no gain, in nats per completion token; None where it is not known."""
    if result.floor is not None:
        return result.floor.loss
    return None if result.before is None else result.before.loss


def gain(result: RunResult) -> float | None:
    """Return how far the test loss ended below the floor, in nats per completion token; None where it is not known."""
    floor = floor_loss(result)
    return None if floor is None or result.after is None or result.after.loss is None else floor - result.after.loss


def is_below_floor(result: RunResult) -> bool:
    """Say whether a run is known to have ended below the floor, in loss and in exact match."""
    gained = gain(result)
    if gained is None or gained >= 0.0:
        return False
    before = result.before
    most = result.floor.exact_match if result.floor is not None else before.exact_match if before is not None else None
    exact = None if result.after is None else result.after.exact_match
    return most is None or exact is None or exact <= most


def _is_near_default(result: RunResult) -> bool:
    """Say whether a run's rate is about the default; True where either is not known."""
    own, default = result.learning_rate, result.default_rate
    return own is None or default is None or 1 / APART <= own / default <= APART


def _beats_base(result: RunResult) -> bool:
    before, after = (None if metrics is None else metrics.loss for metrics in (result.before, result.after))
    return before is not None and after is not None and after < before


def _too_much(result: RunResult) -> bool | None:
    """Say whether a faulty run moved too far rather than hardly; None where that is not known, or it did neither."""
    forgot = forgetting(result)
    if forgot is None or (HARDLY < forgot <= FORGETS and _beats_base(result)):
        return None
    return forgot > HARDLY


def _to_try(result: RunResult, too_much: bool | None) -> float | None:
    """Return the default where it lies the way the rate has to go, else a third of the rate or three times it.

    After a search that lost every trial: a tenth of the least rate tried.
    """
    own, default = result.learning_rate, result.default_rate
    if result.failure == "NoRateError" and result.search:
        return below(result.search)
    if own is None:
        return default
    if default is not None and not _is_near_default(result) and too_much in (None, own > default):
        return default
    return rounded(own / STEP if too_much else min(1.0, own * STEP))


def below(trials: Sequence[SearchTrial]) -> float:
    """Return the rate to try where a search lost all these trials."""
    return rounded(min(trial.learning_rate for trial in trials) / 10)


Read = Callable[[Run], object]
RAW, CHAT = "raw", "chat"
"""Rendering of texts that are joined as they stand, and the word that stands in every rendering by a template."""


def texts_of(spec: RunSpec, result: RunResult | None) -> tuple[str | None, ...]:
    """Return how a run made texts and targets of its rows, of which the fingerprint of the rows says nothing.

    Which turns are trained and the template count for chats alone. Results before 2026-11-29 do not say how they made
    their texts; all of them were raw.
    """
    return made_by((result and result.rendering) or RAW, spec.train_on, spec.chat_template)


def made_by(rendering: str, train_on: str, chat_template: str | None) -> tuple[str | None, ...]:
    """Return what tells texts apart that are made of the same rows: their kinds, of chats also turns and template."""
    made = kinds_in(rendering)
    return (made, train_on, chat_template) if CHAT in made else (made,)


def kinds_in(rendering: str) -> str:
    """Return a rendering without its counts and their order: `raw (12), chat (4)` and `chat (9), raw (7)` are alike.

    Runs that read parts of the rows, drawn by their seeds, count otherwise.
    """
    return ", ".join(sorted(re.findall(r"(.+?) \([\d,]+\)(?:, |$)", rendering)) or [rendering])


def _texts_in_words(run: Run) -> str | None:
    spec, result = run.spec, run.result
    if spec is None or result is None or (result.rendering is None and result.before is None):
        return None
    made, *chat = texts_of(spec, result)
    train_on, template = chat or (None, None)
    given = template and f"template {hashlib.sha256(template.encode()).hexdigest()[:8]}"
    return ", ".join(filter(None, (made and texts_in_words(made), train_on and f"trained turns: {train_on}", given)))


def _generation(spec: RunSpec) -> str:
    if spec.answer_pattern is None:
        return "not"
    return f"{spec.answer_pattern!r}, {counted(spec.generate_limit, 'row')}, {counted(spec.generate_tokens, 'token')}"


def find_warnings(runs: Sequence[Run], related: Sequence[bool]) -> tuple[str, ...]:
    """Return the sentences that belong beside a comparison.

    Args:
        runs: those compared.
        related: for each, whether a full run to compare it with was found, wrecked or not.
    """
    found: list[str] = []
    differing = [(words, [read(run) for run in runs if run.spec is not None]) for words, read in _ASKED]
    differing += [(words, [value for run in runs if (value := read(run)) is not None]) for words, read in _FOUND]
    for words, all_values in differing:
        if len(values := dict.fromkeys(all_values)) > 1:
            words_of = [str(value) for value in values]
            listed = ("; " if any(", " in one for one in words_of) else ", ").join(words_of)
            found.append(f"The runs differ in {words} ({listed}); compare them with care.")
    data = {run.result.data_fingerprint for run in runs if run.result is not None and run.result.data_fingerprint}
    names = {run.spec.data for run in runs if run.spec is not None}
    if len(data) > 1 and len(names) == 1:
        alike = len({_reading(run.spec) for run in runs if run.spec is not None}) == 1
        how = "The content of {} changed between the runs" if alike else "The runs read {} by different settings"
        found.append(f"{how.format(next(iter(names)))}; their test sets are not the same.")
    weights = {run.result.weights for run in runs if run.result is not None and run.result.weights}
    models = {run.spec.model for run in runs if run.spec is not None}
    dtypes = {run.result.environment.get("dtype") for run in runs if run.result is not None and run.result.weights}
    if len(weights) > 1 and len(models) == len(dtypes) == 1:
        found.append(f"The weights of {next(iter(models))} changed between the runs; they did not start alike.")
    searched = {run.spec.searches_rate for run in runs if run.spec is not None}
    if len(searched) > 1:
        found.append("Some runs searched for their own learning rate and others did not.")
    found += _own_texts(runs)
    found += _costs(runs)
    found += _one_rate(runs)
    found += _tried_rates(runs)
    found += _faults(runs)
    found += _endings(runs)
    short = [run.id for run in runs if run.result is not None and run.result.n_held_out_dropped]
    if short:
        found.append(f"Held-out examples whose completion does not fit were left out in {_named(short)}.")
    warm = [run.id for run in runs if run.result is not None and found_states(run.result)]
    if warm:
        found.append(
            f"{_named(warm)} took the states below the tuned blocks from an earlier run; their seconds leave out the "
            "cost of computing them."
        )
    alone = [run.id for run, known in zip(runs, related, strict=True) if not known and run.state is RunState.SUCCEEDED]
    if alone:
        found.append(
            f"No full run of the same model, data, seed and steps for {_named(alone)}; ratios to it are unknown."
        )
    return tuple(found)


def _reading(spec: RunSpec) -> tuple[object, ...]:
    return spec.prompt_template, spec.completion_template, options_in(spec)


_ASKED: tuple[tuple[str, Read], ...] = (
    ("model", lambda run: run.spec and run.spec.model),
    ("data", lambda run: run.spec and run.spec.data),
    ("steps asked for", lambda run: run.spec and length_of(run.spec)),
    ("when they end", lambda run: run.spec and run.spec.until),
    ("parameters kept", lambda run: run.spec and run.spec.keep),
    ("batch size", lambda run: run.spec and run.spec.batch_size),
    ("method", lambda run: run.spec and run.spec.how),
    ("evaluation limit", lambda run: run.spec and run.spec.eval_limit),
    ("how answers are generated", lambda run: run.spec and _generation(run.spec)),
    ("longest example", lambda run: (run.spec and run.spec.max_length) or "the context"),
    ("warm-up steps", lambda run: run.spec and run.spec.warmup_steps),
    ("optimizer", lambda run: run.spec and run.spec.optimizer),
    ("weight decay", lambda run: run.spec and run.spec.weight_decay),
    ("re-weighting", lambda run: run.spec and run.spec.reweight_tau),
)
_FOUND: tuple[tuple[str, Read], ...] = (
    ("how texts are made", lambda run: _texts_in_words(run)),
    ("device", lambda run: run.result.environment.get("device") if run.result else None),
    ("dtype", lambda run: run.result.environment.get("dtype") if run.result else None),
)
"""What only results know -> where it is known; None where it is not."""
_COSTS: tuple[tuple[str, Callable[[Run], object]], ...] = (
    ("CPU threads", lambda run: run.result and run.result.threads),
    ("examples per forward pass", lambda run: _at_once(run)),
    ("activation checkpointing", lambda run: run.spec and run.spec.activation_checkpointing),
)
"""What seconds and memory hang on, and quality by rounding alone -> where it is known; None where it is not."""


def _own_texts(runs: Sequence[Run]) -> list[str]:
    """Say where forgetting on one base model was read on different texts, or on some that nothing is known of."""
    texts, of_base = dict[str | None, list[str]](), dict[str, set[str | None]]()
    for run in runs:
        if run.result is None or forgetting(run.result) is None:
            continue
        texts.setdefault(run.result.general_text, []).append(run.id)
        for base in filter(None, (run.result.weights, run.spec and run.spec.model)):
            of_base.setdefault(base, set()).add(run.result.general_text)
    if all(len(found) < 2 for found in of_base.values()):
        return []
    how = "differ" if len(texts.keys() - {None}) > 1 else "are not known to be the same"
    listed = "; ".join(f"{text or 'unknown'}: {_named(ids)}" for text, ids in texts.items())
    return [
        f"The texts in the base model's own words, on which forgetting is read, {how} ({listed}); compare forgetting "
        "with care."
    ]


def _at_once(run: Run) -> object:
    if run.spec is None or run.result is None or run.result.micro_batch is None:
        return None
    return "the batch" if run.result.micro_batch == run.spec.batch_size else run.result.micro_batch


def _costs(runs: Sequence[Run]) -> list[str]:
    """Say where ratios of time and memory hang on how runs were carried out and not on what they tune."""
    found = []
    for words, read in _COSTS:
        values = dict.fromkeys(value for run in runs if (value := read(run)) is not None)
        if len(values) > 1:
            listed = ", ".join(str(value) for value in values)
            found.append(
                f"The runs differ in {words} ({listed}), on which time and memory hang too, and quality by rounding "
                "alone."
            )
    return found


def _one_rate(runs: Sequence[Run]) -> list[str]:
    """Say that one given rate for full fine-tuning and for few blocks favours one of them."""
    specs = [run.spec for run in runs if run.spec is not None]
    rates = {spec.given_rate for spec in specs}
    if len({spec.plan.is_full for spec in specs}) < 2 or len(rates) > 1 or None in rates:
        return []
    return [
        f"Full fine-tuning and fewer blocks were all given the rate {rates.pop():g}; the best one often differs with "
        "the blocks, so a ratio to full may be due to that: leave the rate at its default, or search one for each."
    ]


def _tried_rates(runs: Sequence[Run]) -> list[str]:
    """Say that a rate that was tried on the choice's blocks favours them over controls of their size."""
    tried = [run.spec for run in runs if run.spec is not None and run.spec.tried_rate is not None]
    own = {spec.plan.blocks for spec in tried if spec.plan.criterion is None}
    if all(spec.plan.blocks in own for spec in tried):
        return []
    return [
        "Controls took the rate that was tried on the blocks of the choice; another may suit them better, so a "
        "difference between them may be due to that."
    ]


def _faults(runs: Sequence[Run]) -> list[str]:
    """Say what is wrong with single runs, which rate to try, and that a wrecked full run is no reference."""
    found = []
    for run in runs:
        if (fault := fault_of(run.result)) is None:
            continue
        whole = run.spec is not None and run.spec.plan.is_full and run.spec.method == "full"
        stands = "; no ratio refers to it" if whole else ""
        instead = "" if fault.rate_to_try is None else f" Try the rate {fault.rate_to_try:g}."
        found.append(f"{run.id}: {fault.words}{stands}.{instead}")
    return found


def found_states(result: RunResult) -> bool:
    """Say whether a run was served states of its frozen prefix that it had not computed itself."""
    cache = result.cache or {}
    return result.resumed_at is None and bool(cache.get("found"))


def _endings(runs: Sequence[Run]) -> list[str]:
    found: list[str] = []
    for state in RunState:
        ids = [run.id for run in runs if run.state is state and state is not RunState.SUCCEEDED]
        if ids:
            found.append(f"{state.capitalize()}: {_named(ids)}; left out of means and ratios.")
    for run in runs:
        proof = run.result.proof if run.result else None
        if proof is None or proof.holds:
            continue
        if not proof.frozen_identical:
            found.append(f"Frozen tensors of {run.id} changed during the run; its numbers are not those of its plan.")
        elif proof.trainable_params != proof.planned_params:
            found.append(
                f"{run.id} tuned {counted(proof.trainable_params, 'parameter')}, its plan {proof.planned_params}."
            )
        else:
            found.append(f"{counted(len(proof.tuned_unmoved), 'tuned tensor')} of {run.id} did not move.")
    return found


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids) if len(ids) <= 3 else f"{', '.join(ids[:3])} and {len(ids) - 3} more"
