"""METHOD.md once more, by plain transformers calls and nothing of ours: what our numbers are checked against."""

from typing import Any

import numpy as np
import torch


def reference_states(model: Any, ids: list[int]) -> torch.Tensor:
    """Return states 0 .. L of one unpadded example, taken from transformers' own hidden states and one hook.

    `hidden_states[-1]` is after the final norm in transformers, so state L is taken where the last block ends.
    """
    kept: list[torch.Tensor] = []
    blocks = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    handle = blocks[-1].register_forward_hook(
        lambda _m, _i, out: kept.append(out if isinstance(out, torch.Tensor) else out[0])
    )
    with torch.no_grad():
        hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    handle.remove()
    return torch.stack([state[0] for state in (*hidden[:-1], kept[0])])


def reference_ids(tokenizer: Any, prompt: str, completion: str) -> tuple[list[int], list[int]]:
    """Return the ids before the first target and those from it on: one text, parted where the completion's characters
    begin.
    """
    found = tokenizer(prompt + completion)
    places = (found.char_to_token(at) for at in range(len(prompt), len(prompt + completion)))
    first = next(place for place in places if place is not None)
    return found["input_ids"][:first], found["input_ids"][first:]


def reference_norm(model: Any) -> Any:
    """Return the final norm of a llama-, gemma- or gpt2-shaped model."""
    return model.transformer.ln_f if hasattr(model, "transformer") else model.model.norm


def reference_deviations(model: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return deviation and target deviation per state: lens reading, even virtual transition, first positions."""
    head = model.get_output_embeddings().weight.detach().double()
    inverse = torch.linalg.pinv(head)  # (d, V): an SVD, unlike ours
    norm, embedding = reference_norm(model), model.get_input_embeddings()
    deviations, target_deviations = [], []
    for prompt, completion in pairs:
        ids, (target, *_) = reference_ids(tokenizer, prompt, completion)
        states = reference_states(model, ids)[:, -1]
        with torch.no_grad():
            factual = norm(states).double()
            anchor = norm(embedding(torch.tensor(ids[-1:])))[0].double()
        factual = factual / factual.norm(dim=-1, keepdim=True)
        start, end = anchor / anchor.norm(), inverse[:, target] / inverse[:, target].norm()
        angle = torch.arccos(start @ end)
        n_blocks = len(states) - 1
        fractions = torch.arange(n_blocks + 1, dtype=torch.float64) / n_blocks
        virtual = (
            torch.sin((1 - fractions) * angle)[:, None] * start + torch.sin(fractions * angle)[:, None] * end
        ) / torch.sin(angle)
        deviations.append(1 - (factual * virtual).sum(dim=-1).numpy())
        target_deviations.append(1 - (factual @ end).numpy())
    return np.mean(deviations, axis=0), np.mean(target_deviations, axis=0)
