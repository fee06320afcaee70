"""Pretraining of the bundled model: world -> corpus -> tokenizer -> weights, the same for the same spec."""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from tokenizers.decoders import Metaspace as MetaspaceDecoder
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
)

from lsf.bundled import MODEL_FOLDER
from lsf.data.corpus import CHANCE_RELATIONS, Corpus, Statement, make_corpus
from lsf.data.world import make_world

PAD, BEGIN, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
PUNCTUATION = r"[.,:?!]"


def _splitter() -> pre_tokenizers.Sequence:
    """Return the rule that cuts text into words (with their space, shown as U+2581) and punctuation marks."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Split(Regex(PUNCTUATION), behavior="isolated"),
        ]
    )


def make_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer that knows every word of `texts`.

    A text gets the begin-of-text token unless `add_special_tokens=False`; then " Paris" gives the one token it has in
    running text.
    """
    splitter = _splitter()
    words = {piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)}
    vocabulary = {word: index for index, word in enumerate([PAD, BEGIN, END, UNKNOWN, *sorted(words)])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (PAD, BEGIN, END, UNKNOWN)])
    tokenizer.pre_tokenizer = splitter  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = MetaspaceDecoder(prepend_scheme="always")  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, vocabulary[BEGIN])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
    )


def encode(tokenizer: Any, statements: Sequence[Statement]) -> Tensor:
    """Return ids of the statements with begin and end, padded at the right; int64, shape (statements, longest)."""
    rows = tokenizer([statement.text + tokenizer.eos_token for statement in statements]).input_ids
    ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id)
    for place, row in zip(ids, rows, strict=True):
        place[: len(row)] = torch.tensor(row)
    return ids


def language_loss(model: Any, ids: Tensor, pad: int) -> tuple[Tensor, int]:
    """Return the summed next-token loss in nats over real tokens, and their number.

    Padding stands at the right of causal attention, so no mask is needed.
    """
    logits = model(input_ids=ids[:, :-1]).logits
    targets = ids[:, 1:]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad, reduction="sum")
    return loss, int((targets != pad).sum())


@torch.no_grad()
def mean_loss(model: Any, ids: Tensor, pad: int) -> float:
    """Return the mean next-token loss in nats over all real tokens."""
    totals = [language_loss(model, part, pad) for part in ids.split(512)]
    return sum(loss.item() for loss, _ in totals) / sum(count for _, count in totals)


@torch.no_grad()
def exactly_completed(model: Any, tokenizer: Any, statements: Sequence[Statement]) -> np.ndarray:
    """Return which statements the model completes word for word, then ends; bool, shape (statements,).

    Greedy decoding is right exactly where each token of the completion is the likeliest after those before it, so one
    pass over the whole statement decides.
    """
    right: list[bool] = []
    for start in range(0, len(statements), 512):
        part = statements[start : start + 512]
        ids = encode(tokenizer, part)
        best = model(input_ids=ids).logits.argmax(-1)
        begins = map(len, tokenizer([statement.prompt for statement in part]).input_ids)
        ends = map(len, tokenizer([statement.text for statement in part]).input_ids)
        for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            right.append(bool((best[row, begin - 1 : end - 1] == ids[row, begin:end]).all()))
    return np.array(right)


def by_relation(right: np.ndarray, statements: Sequence[Statement]) -> dict[str, float]:
    """Return the share of right answers per relation."""
    relations = np.array([statement.relation for statement in statements])
    return {str(name): round(float(right[relations == name].mean()), 4) for name in dict.fromkeys(relations.tolist())}


Progress = Callable[[str], None]
Family = Literal["llama", "gpt2", "gpt_neox"]

CONTEXT = 64
"""Positions."""
KEPT = (0.0, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0)
"""Shares of the steps after which a checkpoint is kept, where some are asked for."""


@dataclass(frozen=True)
class PretrainingSpec:
    """Everything that decides the weights."""

    seed: int = 0
    """Seed of the first weights and of the order of statements."""
    world: int = 0
    """Seed of the world; the lessons are about world 0."""
    family: Family = "llama"
    """Architecture. gpt2 and gpt_neox have a plain MLP, biases and as many keys as heads; gpt2 learned positions and a
    tied head, gpt_neox attention and MLP side by side."""
    steps: int = 1000
    """Optimizer steps; the run stops by this alone, never by the clock."""
    batch_size: int = 256
    """Statements per step."""
    learning_rate: float = 3e-3
    """Highest rate, reached after the warm-up, falling to 0 along a cosine."""
    warmup_steps: int = 100
    """Steps of linear rise."""
    weight_decay: float = 0.1
    """AdamW's, on matrices."""
    width: int = 128
    """Size of the residual stream."""
    inner: int = 256
    """Size of the hidden layer of each MLP."""
    heads: int = 4
    """Attention heads; half as many keys and values (llama)."""
    blocks: int = 8
    """Transformer layers."""
    biases: bool = True
    """Whether the linear maps of a llama's blocks have biases; the others always have them."""
    log_every: int = 100
    """Steps between two lines of the log."""


def make_model(spec: PretrainingSpec, tokenizer: Any) -> LlamaForCausalLM | GPT2LMHeadModel | GPTNeoXForCausalLM:
    """Return the untrained decoder, drawn from the spec's seed."""
    torch.manual_seed(spec.seed)
    words = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if spec.family == "gpt2":
        sizes = {"n_embd": spec.width, "n_inner": spec.inner, "n_layer": spec.blocks, "n_head": spec.heads}
        still = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": False}
        return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=CONTEXT, **sizes, **words, **still))
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": spec.width,
        "intermediate_size": spec.inner,
        "num_hidden_layers": spec.blocks,
        "num_attention_heads": spec.heads,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "use_cache": False,
    }
    if spec.family == "gpt_neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**shape, **words))
    biases = {"attention_bias": spec.biases, "mlp_bias": spec.biases}
    return LlamaForCausalLM(LlamaConfig(**shape, **biases, num_key_value_heads=spec.heads // 2, **words))


def _trimmed_halves(ids: Tensor, pad: int) -> list[Tensor]:
    """Return the shorter and the longer half of a batch, each without needless padding."""
    lengths = (ids != pad).sum(1)
    halves = lengths.argsort(stable=True).chunk(2)
    return [ids[half, : int(lengths[half].max())] for half in halves]


def train_(
    model: Any,
    tokenizer: Any,
    corpus: Corpus,
    spec: PretrainingSpec,
    progress: Progress,
    keep: Callable[[int], None] = lambda step: None,
) -> list[dict[str, float]]:
    """Train the model in place and return its loss curve: step, loss and held-out loss in nats per token, seconds.

    `keep` is called with the number of steps done: before the first step and after every one.
    """
    pad = tokenizer.pad_token_id
    ids, held_out = encode(tokenizer, corpus.taught), encode(tokenizer, corpus.held_out)
    chances = corpus.probabilities()
    rng = np.random.default_rng([spec.seed, 2])
    matrices = [tensor for tensor in model.parameters() if tensor.ndim > 1]
    vectors = [tensor for tensor in model.parameters() if tensor.ndim <= 1]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, spec.learning_rate, betas=(0.9, 0.98), weight_decay=spec.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, spec.warmup_steps, spec.steps)
    curve: list[dict[str, float]] = []
    started = time.perf_counter()
    keep(0)
    for step in range(1, spec.steps + 1):
        batch = ids[torch.from_numpy(rng.choice(len(ids), spec.batch_size, p=chances))]
        count = int((batch[:, 1:] != pad).sum())
        total = 0.0
        for half in _trimmed_halves(batch, pad):
            loss = language_loss(model, half, pad)[0] / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        keep(step)
        if step % spec.log_every == 0 or step == spec.steps:
            seconds = time.perf_counter() - started
            line = {
                "step": step,
                "loss": round(total, 4),
                "held_out_loss": round(mean_loss(model, held_out[::3], pad), 4),
                "seconds": round(seconds, 1),
            }
            curve.append(line)
            left = seconds / step * (spec.steps - step)
            progress(
                f"step {step}/{spec.steps} loss {total:.3f} held-out {line['held_out_loss']:.3f} {left:.0f} s left"
            )
    return curve


def keep_checkpoint(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the model as it is now, in half precision, with its tokenizer; the model stays as it is."""
    half = {name: value.detach().half().clone() for name, value in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=half)
    tokenizer.save_pretrained(folder)


def learnt(model: Any, tokenizer: Any, corpus: Corpus) -> dict:
    """Return what a trained model knows of its world: its share of right completions, in all and by relation."""
    model.eval()
    right, inferred = (exactly_completed(model, tokenizer, part) for part in (corpus.held_out, corpus.unstated))
    taught = [statement for statement in corpus.taught if statement.relation not in CHANCE_RELATIONS][::10]
    return {
        "parameters": sum(tensor.numel() for tensor in model.parameters()),
        "statements": {
            "taught": len(corpus.taught),
            "held_out": len(corpus.held_out),
            "unstated": len(corpus.unstated),
        },
        "held_out_exact_match": round(float(right.mean()), 4),
        "held_out_exact_match_by_relation": by_relation(right, corpus.held_out),
        "unstated_exact_match_by_relation": by_relation(inferred, corpus.unstated),
        "taught_exact_match": round(float(exactly_completed(model, tokenizer, taught).mean()), 4),
    }


def pretrain(
    out: Path,
    seed: int = 0,
    spec: PretrainingSpec | None = None,
    progress: Progress | None = None,
    checkpoints: Path | None = None,
) -> dict:
    """Make the bundled model and write its folder: weights, tokenizer and `pretraining.json`.

    Args:
        out: folder to write; made if missing.
        seed: of the first weights and the order of statements, used where no spec is given.
        spec: settings other than the defaults (a quarter of an hour on 2 cores).
        progress: told one line every `log_every` steps.
        checkpoints: folder to keep the model along the way in, in half precision: `step-0000` and so on, one for each
            of `KEPT`; None keeps none.

    Returns:
        What `pretraining.json` holds.
    """
    spec = spec or PretrainingSpec(seed=seed)
    progress = progress or (lambda line: None)
    started = time.perf_counter()
    corpus = make_corpus(make_world(spec.world))
    tokenizer = make_tokenizer(statement.text for statement in (*corpus.taught, *corpus.held_out))
    model = make_model(spec, tokenizer)
    wanted = {round(spec.steps * part): part for part in KEPT} if checkpoints is not None else {}

    def keep(step: int) -> None:
        if checkpoints is not None and step in wanted:
            keep_checkpoint(model, tokenizer, checkpoints / f"step-{step:04d}")

    curve = train_(model, tokenizer, corpus, spec, progress, keep)
    log = {"spec": asdict(spec)} | learnt(model, tokenizer, corpus)
    log |= {
        "held_out_loss": curve[-1]["held_out_loss"] if curve else None,
        "seconds": round(time.perf_counter() - started, 1),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
        },
        "curve": curve,
    }
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "pretraining.json").write_text(json.dumps(log, indent=1) + "\n")
    return log


def main(arguments: Sequence[str] | None = None) -> None:
    """Pretrain from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=MODEL_FOLDER, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=PretrainingSpec.steps)
    parser.add_argument("--batch-size", type=int, default=PretrainingSpec.batch_size)
    parser.add_argument("--checkpoints", type=Path, help="folder for checkpoints from along the way")
    options = parser.parse_args(arguments)
    spec = PretrainingSpec(seed=options.seed, steps=options.steps, batch_size=options.batch_size)
    log = pretrain(options.out, spec=spec, progress=_tell, checkpoints=options.checkpoints)
    log.pop("curve")
    sys.stderr.write(json.dumps(log, indent=1) + "\n")


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
