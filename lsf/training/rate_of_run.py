"""Which rate a run takes: the one given, the default, or the one its own search or that of its group found."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lsf.errors import BadInputError
from lsf.files import read_json, write_json
from lsf.models.loading import LoadedModel, config_hash
from lsf.runs.checkpoints import Checkpoint
from lsf.runs.lock import ResultBuilder
from lsf.runs.result import SearchTrial
from lsf.runs.spec import METHODS_OWN, RunSpec
from lsf.schema import decode
from lsf.training.processes import n_processes
from lsf.training.rate_search import NoRateError, Search
from lsf.training.short_runs import spec_rate

GIVEN, DEFAULT, SEARCHED = "given", "default", "search"
TOO_SHORT = "default: a fifth of the run's cost is too little for a search"
"""Words for where a rate came from."""
SEARCHES = "searched-rates"
"""Folder beside the runs that keeps what their searches found."""
FREE = (
    "plan", "role", "seed", "learning_rate", "model", "data", "prompt_template", "completion_template", "keep",
    "micro_batch", "cache", "activation_checkpointing", "checkpoint_steps", "checkpoint_seconds", "report_to",
    "eval_every", "dtype", "device", "proof", "latency", "threads", "general", "general_share",
    "answer_pattern", "generate_limit", "generate_tokens",
)  # fmt: skip
"""Fields of a spec that runs of one group may differ in; model, data and general data are known better by hashes."""


@dataclass(frozen=True)
class Choice:
    """A rate, and how it came about; fields of a result."""

    learning_rate: float
    """AdamW's peak rate."""
    rate_from: str
    """given, default, search, or the words for what else it was."""
    search: tuple[SearchTrial, ...] = ()
    """Trials, those of another run of the group where that searched."""
    search_steps: int = 0
    """Optimizer steps of the trials this run made itself."""
    search_seconds: float | None = None
    """Wall seconds of them; None where it made none."""
    search_share: float | None = None
    """Their predicted FLOPs over the run's; None where it made none."""


def resumed_choice(checkpoint: Checkpoint) -> Choice:
    """Return the choice a run made before it was interrupted."""
    about = checkpoint.progress.about
    known = {item.name: about[item.name] for item in fields(Choice) if item.name in about}
    how = {"rate_from": SEARCHED if about["search"] else GIVEN}
    return decode(how | known, Choice, str(checkpoint.place), "choice of a rate")


def choose_rate(loaded: LoadedModel, spec: RunSpec, builder: ResultBuilder, folder: Path, search: Any) -> Choice:
    """Return the rate of a run.

    A search is kept beside the runs and taken over by every later run of its group: the same weights and configuration,
    data, method, loop and number of tuned blocks and modules. It is counted by the run that made it.

    Args:
        loaded: the base model.
        spec: what is asked.
        builder: knows weights and data; learns the trials of a search that found nothing.
        folder: of the run.
        search: () -> Search; makes one.

    Raises:
        NoRateError: the search found only divergence.
    """
    own = spec_rate(loaded, spec)
    builder.add(default_rate=own)
    if spec.learning_rate == METHODS_OWN:
        return Choice(own, DEFAULT)
    if spec.given_rate is not None:
        return Choice(spec.given_rate, GIVEN)
    place = folder.parent / SEARCHES / f"{group_key(loaded, spec, builder)}.json"
    alone = n_processes() == 1  # several must not disagree on whether a file was there
    if alone and (known := _known(place)) is not None:
        return known
    try:
        found: Search = search()
    except NoRateError as error:
        builder.add(**vars(_made(error.search)) | {"learning_rate": None})
        raise
    if not found.trials:
        return Choice(found.learning_rate, TOO_SHORT)
    if alone:
        trials = [asdict(trial) for trial in found.trials]
        place.parent.mkdir(exist_ok=True)
        write_json(place, {"run": folder.name, "learning_rate": found.learning_rate, "search": trials})
    return _made(found)


def group_key(loaded: LoadedModel, spec: RunSpec, builder: ResultBuilder) -> str:
    """Return what tells groups apart whose runs share one search."""
    plan, known = spec.plan, builder.known
    asked = {item.name: getattr(spec, item.name) for item in fields(spec) if item.name not in FREE}
    size = [len(plan.blocks), plan.embedding, plan.final_norm, plan.head, list(plan.modules)]
    whole = [asked | {"options": dict(spec.options)}, size, list(known.measured_on), config_hash(loaded.model)]
    if known.general is not None:
        whole += [known.general.fingerprint, spec.general_share]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def _made(found: Search) -> Choice:
    return Choice(found.learning_rate, SEARCHED, found.trials, found.steps, found.seconds, found.share)


def _known(place: Path) -> Choice | None:
    """Return what a run of the group found before; None where none did, or its file cannot be read."""
    try:
        kept = read_json(place, "a search's result")
        kept["rate_from"] = f"search of {kept.pop('run')}"
        return decode(kept, Choice, str(place), "choice of a rate")
    except (BadInputError, AttributeError, KeyError, TypeError):
        return None
