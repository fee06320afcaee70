"""Translators: a linear map from every state to the last one, so that the head reads where a state is heading.

`jacobian` takes the mean derivative of the last state, as METHOD's third reading does; `affine` is the least-squares
fit of the last state itself, as the tuned lens has it (Belrose et al., arXiv 2303.08112, there fitted by divergence).
Both are fitted once per model, on text in its own words, and kept on disk.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lsf.errors import BadInputError, LsfError, StoppedError
from lsf.files import cache_folder, make_folder, write_bytes
from lsf.models.devices import exact, fetched, places_of
from lsf.models.layout import ModelLayout, captured_states
from lsf.models.loading import LoadedModel, config_hash, is_known_by_weights, weights_hash
from lsf.models.writing import GeneralText, sample_general_text
from lsf.progress import Reporter

TEXTS = 128
"""Texts in the model's own words that translators are fitted on."""
TOKENS = {"jacobian": 32, "affine": 64}
"""Kind -> tokens of each text at most; a derivative takes a backward pass per dimension, a fit one forward pass."""
BATCH = 8
"""Texts per pass."""
RIDGE = 0.01
"""Weight of the penalty on leaving the identity, over the variance of each dimension of the state."""
FITTING = "fitting the reading"
"""The phase, by the words it is told in."""
VERSION = 2
"""Of how translators are fitted; another one makes every kept file worthless."""


@dataclass(frozen=True)
class Translators:
    """What is read of state l: matrices[l] h_l + offsets[l]; of the last state, itself."""

    kind: str
    """`jacobian` or `affine`."""
    matrices: Float[Tensor, "blocks width width"]
    """Of states 0 .. L-1."""
    offsets: Float[Tensor, "blocks width"]
    """Of the same; 0 for `jacobian`."""
    n_texts: int
    """Texts they were fitted on."""
    n_sources: int
    """Places in these texts whose states were read."""

    def of(self, state: Float[Tensor, "positions width"], number: int) -> Float[Tensor, "positions width"]:
        """Return states of one number, translated, in their own type."""
        if number == len(self.matrices):
            return state
        matrix, offset = (values[number].to(state.device).float() for values in (self.matrices, self.offsets))
        return (state.float() @ matrix.T + offset).to(state.dtype)

    def __call__(self, states: Float[Tensor, "positions states width"]) -> Float[Tensor, "positions states width"]:
        """Return states 0 .. L, translated."""
        return torch.stack([self.of(state, number) for number, state in enumerate(states.unbind(dim=1))], dim=1)

    def to(self, model: torch.nn.Module, device: torch.device) -> "Translators":
        """Return them where the model takes its ids, in the type of its weights."""
        dtype = next(model.parameters()).dtype
        wanted = dtype if dtype.is_floating_point else torch.float32
        matrices, offsets = (values.to(device, wanted) for values in (self.matrices, self.offsets))
        return Translators(self.kind, matrices, offsets, self.n_texts, self.n_sources)


def translators_file(loaded: LoadedModel, kind: str) -> Path:
    """Return where the translators of a model are kept, there or not: a file that can be given to others.

    Its name begins with a hash of the weights as loaded, the config, and the tokens that begin and end a text.
    """
    whole = hashlib.sha256(json.dumps(_model(loaded)).encode()).hexdigest()
    return cache_folder() / "translators" / f"{whole[:32]}-{kind}.safetensors"


def _model(loaded: LoadedModel) -> dict[str, str]:
    """Return what decides which texts a model writes, and the states that it has of them."""
    ends = loaded.tokenizer.bos_token_id, loaded.tokenizer.eos_token_id, loaded.context
    return {"weights": weights_hash(loaded.model), "config": config_hash(loaded.model), "ends": json.dumps(ends)}


def translators_of(loaded: LoadedModel, kind: str, report: Reporter) -> Translators:
    """Return the translators of a model: those kept on disk, else fitted now and kept.

    A file that is damaged or of another model is not used, and written anew.

    Args:
        loaded: the model; unchanged.
        kind: `jacobian` or `affine`.
        report: progress; its `stop` ends the fit.

    Raises:
        BadInputError: `jacobian` of a model spread over several devices, where no backward pass is possible.
        StoppedError: a stop before they were fitted.
    """
    if not is_known_by_weights(loaded.model):
        return fit_translators(loaded, kind, report, TEXTS).to(loaded.model, loaded.device)
    place, about = translators_file(loaded, kind), _about(loaded, kind)
    known = _load(place, about)
    if known is None:
        known = fit_translators(loaded, kind, report, TEXTS)
        told = {**about, "n_texts": str(known.n_texts), "n_sources": str(known.n_sources)}
        with suppress(LsfError):  # a disk that takes nothing costs the next analysis a fit
            make_folder(place.parent)
            write_bytes(place, save({"matrices": known.matrices, "offsets": known.offsets}, told))
    return known.to(loaded.model, loaded.device)


def are_kept(loaded: LoadedModel, kind: str) -> bool:
    """Say whether translators need not be fitted, without reading them."""
    return is_known_by_weights(loaded.model) and translators_file(loaded, kind).exists()


def fit_translators(loaded: LoadedModel, kind: str, report: Reporter, n_texts: int) -> Translators:
    """Fit the translators of a model on texts that it writes itself.

    Args:
        loaded: the model; unchanged.
        kind: `jacobian` or `affine`.
        report: progress and stop.
        n_texts: how many.

    Returns:
        In float32, in main memory.

    Raises:
        BadInputError, StoppedError: see `translators_of`.
    """
    if kind == "jacobian" and (places := places_of(loaded.model)):
        raise BadInputError(
            f"The model is spread over {', '.join(places)}, where no backward pass is possible, which the reading "
            "jacobian needs once; accepted are the readings: lens, raw, affine."
        )

    def check() -> None:
        if report.stop:
            raise StoppedError("The analysis was stopped.")

    text = sample_general_text(
        loaded.model, loaded.tokenizer, loaded.context, loaded.info.dtype, check=check, n_texts=n_texts,
        n_tokens=TOKENS[kind],
    )  # fmt: skip
    if kind == "jacobian":
        return _by_derivatives(loaded, text, report, check)
    return _by_squares(loaded, text, report, check)


def _by_derivatives(loaded: LoadedModel, text: GeneralText, report: Reporter, check: Callable[[], None]) -> Translators:
    """Return, per state, the mean over source places of the summed derivatives of the last state there and later."""
    n_blocks, width = len(loaded.layout.blocks), loaded.info.width
    sums = torch.zeros(n_blocks, width, width, device=loaded.device)
    batches = _batches(text, loaded.device)
    for number, (ids, counted) in enumerate(batches):
        with torch.enable_grad():
            *states, last = _states(loaded.layout, ids, with_gradients=True)
            for row in range(width):
                check()
                target = (last[..., row].float() * counted.to(last.device)).sum()
                found = torch.autograd.grad(target, states, retain_graph=row + 1 < width)
                parts = [(one.float() * counted.to(one.device)[..., None]).sum(dim=(0, 1)) for one in found]
                sums[:, row] += torch.stack([part.to(sums.device) for part in parts])
                report.progress(number * width + row + 1, len(batches) * width, FITTING)
        del states, last
    sources = int(text.lengths.sum())
    (matrices,) = fetched(sums / sources)
    zero = torch.zeros(n_blocks, width)
    return Translators("jacobian", torch.from_numpy(matrices).float(), zero, len(text.lengths), sources)


@torch.no_grad()
def _by_squares(loaded: LoadedModel, text: GeneralText, report: Reporter, check: Callable[[], None]) -> Translators:
    """Return, per state, the ridge regression of what the last state has more; the first place of a text is left out.

    States there are hundreds of times longer than others (attention sinks) and would be all that is fitted.
    """
    n_blocks, width = len(loaded.layout.blocks), loaded.info.width
    within = exact(torch.zeros(n_blocks, width, width, device=loaded.device))
    across, means, more = torch.zeros_like(within), within.new_zeros(n_blocks, width), within.new_zeros(n_blocks, width)
    batches = _batches(text, torch.device("cpu"))
    for number, (ids, counted) in enumerate(batches, 1):
        check()
        counted[:, 0] = False
        places = counted.flatten().nonzero()[:, 0].to(loaded.device)
        states = _states(loaded.layout, ids.to(loaded.device))
        kept = [state.to(loaded.device).flatten(0, 1)[places] for state in states]
        last = exact(kept[-1])
        for block, state in enumerate(map(exact, kept[:-1])):
            rest = last - state
            within[block] += state.T @ state
            across[block] += rest.T @ state
            means[block] += state.sum(dim=0)
            more[block] += rest.sum(dim=0)
        report.progress(number, len(batches), FITTING)
    sources = int((text.lengths - 1).sum())
    moments = [torch.from_numpy(array) for array in fetched(within, across, means, more)]
    solved = [_ridge(*(one[block].double() / sources for one in moments)) for block in range(n_blocks)]
    matrices, offsets = (torch.stack([pair[which] for pair in solved]) for which in (0, 1))
    return Translators("affine", matrices, offsets, len(text.lengths), sources)


def _ridge(
    within: Float[Tensor, "width width"],
    across: Float[Tensor, "width width"],
    mean: Float[Tensor, " width"],
    more: Float[Tensor, " width"],
) -> tuple[Float[Tensor, "width width"], Float[Tensor, " width"]]:
    """Return matrix and offset of the last state from second moments: of the state, and of what the last has more."""
    spread = within - mean[:, None] * mean
    own = spread.diagonal()
    loaded = spread + torch.diag(RIDGE * own.clamp(min=1e-12 * float(own.max())))
    left = torch.linalg.solve(loaded, (across - more[:, None] * mean).T).T
    return (left + torch.eye(len(mean), dtype=left.dtype)).float(), (more - left @ mean).float()


def _batches(
    text: GeneralText, device: torch.device
) -> list[tuple[Int[Tensor, "texts tokens"], Bool[Tensor, "texts tokens"]]]:
    """Return token ids and which of them count, a batch of texts each."""
    counted = torch.arange(text.ids.shape[1]) < text.lengths[:, None]
    pairs = zip(text.ids.split(BATCH), counted.split(BATCH), strict=True)
    return [(ids.to(device), places.to(device)) for ids, places in pairs]


def _states(
    layout: ModelLayout, ids: Int[Tensor, "texts tokens"], with_gradients: bool = False
) -> list[Float[Tensor, "texts tokens width"]]:
    """Return states 0 .. L of a pass without head; with gradients, all on one graph that begins at state 0."""

    def keep(state: Tensor) -> Tensor:
        return state.requires_grad_() if with_gradients and not state.requires_grad else state

    with captured_states(layout, keep) as states:
        layout.model.base_model(input_ids=ids, use_cache=False)
    return states


def _about(loaded: LoadedModel, kind: str) -> dict[str, str]:
    fitted = {"texts": TEXTS, "tokens": TOKENS[kind], "ridge": RIDGE}
    return {
        "kind": kind, "model": loaded.info.name, **_model(loaded), "version": str(VERSION),
        "fitted": json.dumps(fitted),
    }  # fmt: skip


def _load(place: Path, about: dict[str, str]) -> Translators | None:
    try:
        with safe_open(place, "pt") as file:
            told = file.metadata() or {}
            if any(told.get(name) != value for name, value in about.items() if name != "model"):
                return None
            numbers = int(told["n_texts"]), int(told["n_sources"])
            return Translators(about["kind"], file.get_tensor("matrices"), file.get_tensor("offsets"), *numbers)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
