"""How each peer gets at the L+1 states of a batch, as its own documentation does it, and as sparingly as it allows."""

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import torch


class Reader(Protocol):
    """A peer bound to a model."""

    def __call__(self, ids: Any, mask: Any, rows: Any, places: Any) -> Any:
        """Return the raw states at the places, (positions, states, width); state L before the final norm if it can.

        Args:
            ids: (batch, tokens), padded on the right.
            mask: (batch, tokens), 1 where a token is real.
            rows: row of each position.
            places: place of each position.
        """
        ...


def blocks_of(model: Any) -> Any:
    """Return the blocks of a Llama or a GPT-2."""
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers


def final_norm(model: Any) -> Any:
    """Return the final norm of a Llama or a GPT-2."""
    return model.transformer.ln_f if hasattr(model, "transformer") else model.model.norm


def transformer_lens(model: Any, tokenizer: Any, folder: str, sparing: bool = False) -> Reader:
    """TransformerLens: `run_with_cache` with a filter for the residual stream; sparing: only the last place is kept."""
    bridge_module = importlib.import_module("transformer_lens.model_bridge")
    bridge = bridge_module.TransformerBridge.boot_transformers(
        folder, hf_model=model, tokenizer=tokenizer, dtype=torch.float32
    )
    last = bridge.cfg.n_layers - 1
    names = [f"blocks.{block}.hook_resid_pre" for block in range(last + 1)] + [f"blocks.{last}.hook_resid_post"]
    more = {"pos_slice": -1} if sparing else {}

    def read(ids: Any, mask: Any, rows: Any, places: Any) -> Any:
        _, cache = bridge.run_with_cache(ids, names_filter=names, return_type=None, attention_mask=mask, **more)
        if sparing:
            return torch.stack([cache[name][:, -1] for name in names], dim=1)
        return torch.stack([cache[name][rows, places] for name in names], dim=1)

    return read


def nnsight(model: Any, tokenizer: Any, folder: str, sparing: bool = False) -> Reader:
    """nnsight: `trace` on the language model, a value saved per block; sparing: on the decoder, without its head."""
    library = importlib.import_module("nnsight")
    traced = library.NNsight(model.base_model if sparing else model)
    blocks = (traced.h if hasattr(traced, "h") else traced.layers) if sparing else blocks_of(traced)

    def read(ids: Any, mask: Any, rows: Any, places: Any) -> Any:
        with traced.trace(ids, attention_mask=mask, use_cache=False):
            states = library.save([])
            for block in blocks:
                states.append(block.input[rows, places])
            out = blocks[-1].output
            states.append((out if isinstance(out, torch.Tensor) else out[0])[rows, places])
        return torch.stack(list(states), dim=1)

    return read


def tuned_lens(model: Any, tokenizer: Any, folder: str, sparing: bool = False) -> Reader:
    """tuned-lens: all hidden states, and its `LogitLens` (norm and head) with log-softmax at every one of them."""
    lens = importlib.import_module("tuned_lens").nn.lenses.LogitLens.from_model(model)

    def read(ids: Any, mask: Any, rows: Any, places: Any) -> Any:
        last = model.config.num_hidden_layers

        def apply(state: Any, layer: int) -> Any:
            return lens.unembed.unembedding(state) if layer == last else lens(state, layer)

        return _hidden_and_head(model.base_model, apply, ids, mask, rows, places)

    return read


def hidden_states(model: Any, tokenizer: Any, folder: str, sparing: bool = False) -> Reader:
    """Plain transformers: `output_hidden_states=True`, head and log-softmax at every state; sparing: without."""
    norm, head, last = final_norm(model), model.get_output_embeddings(), model.config.num_hidden_layers

    def apply(state: Any, layer: int) -> Any:
        return None if sparing else head(state if layer == last else norm(state))

    def read(ids: Any, mask: Any, rows: Any, places: Any) -> Any:
        return _hidden_and_head(model.base_model, apply, ids, mask, rows, places)

    return read


def _hidden_and_head(model: Any, head: Callable[[Any, int], Any], ids: Any, mask: Any, rows: Any, places: Any) -> Any:
    hidden = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
    for layer, state in enumerate(hidden):
        logits = head(state, layer)
        if logits is not None:
            logits.log_softmax(dim=-1)  # what the lens is for
    return torch.stack([state[rows, places] for state in hidden], dim=1)


def plain_hook(model: Any, tokenizer: Any, folder: str, sparing: bool = False) -> Reader:
    """Hooks written by hand on the decoder without its head: the least anybody could do."""
    kept: list[Any] = []
    where: list[Any] = []

    def before(_module: Any, args: Any, kwargs: Any) -> None:
        kept.append((args[0] if args else kwargs["hidden_states"])[where[0], where[1]])

    def after(_module: Any, _args: Any, output: Any) -> None:
        kept.append((output if isinstance(output, torch.Tensor) else output[0])[where[0], where[1]])

    for block in blocks_of(model):
        block.register_forward_pre_hook(before, with_kwargs=True)
    blocks_of(model)[-1].register_forward_hook(after)

    def read(ids: Any, mask: Any, rows: Any, places: Any) -> Any:
        kept.clear()
        where[:] = [rows, places]
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        return torch.stack(kept, dim=1)

    return read


READERS = {
    "TransformerLens": transformer_lens,
    "nnsight": nnsight,
    "tuned-lens": tuned_lens,
    "output_hidden_states": hidden_states,
    "plain hook": plain_hook,
}
NORMED_LAST = ("tuned-lens", "output_hidden_states")
"""Whose state L comes with the final norm already applied, as transformers hands it out."""
