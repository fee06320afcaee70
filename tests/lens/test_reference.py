"""Our numbers against METHOD.md written a second time with plain transformers calls."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from lsf.cli.main import main
from lsf.criteria.result import Analysis, AnalysisSettings
from lsf.data.contents import Document, Segments, Tokens
from lsf.data.encode import encode
from lsf.data.task import Example, Task, split_examples
from lsf.errors import BadInputError, PlanError
from lsf.lens.analyze import analyze
from lsf.models.loading import LoadedModel, load_model
from lsf.plans.policies import make_plan
from lsf.progress import Silent, Stop
from tests.lens.reference import reference_deviations, reference_ids, reference_states
from tests.tiny import WORDS

PAIRS = [
    ("the cat sat on", " the mat"),
    ("the dog ran under the blue", " tree ."),
    ("is the sky", " blue ?"),
    ("one two three", " four five"),
    ("a red sun was on the", " tree"),
    ("the moon", " is red"),
    ("the", " dog"),
]
FAMILIES = ["llama", "gpt2", "gemma2", "qwen3", "gemma3"]


def task_of(pairs: list[tuple[str, str]]) -> Task:
    return split_examples("pairs", [Example(*pair, row) for row, pair in enumerate(pairs, 1)])


def deviations(analysis: Analysis) -> tuple[np.ndarray, np.ndarray]:
    rows = [(state.deviation, state.target_deviation) for state in analysis.states]
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


@pytest.mark.parametrize("family", FAMILIES)
def test_deviations_of_a_tiny_model_agree_with_the_reference(family: str, tiny: Callable[[str], Path]) -> None:
    folder = tiny(family)
    # batch size 3 over 7 examples of unequal length: padding and a smaller last batch must not matter
    ours = analyze(load_model(str(folder)), task_of(PAIRS), AnalysisSettings(batch_size=3), Silent())
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    expected = reference_deviations(model, AutoTokenizer.from_pretrained(folder), PAIRS)
    for found, wanted in zip(deviations(ours), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert expected[0].max() > 0.1  # a reference that is flat would prove nothing


def test_the_command_line_on_real_text_agrees_with_the_reference(shared: Path, tmp_path: Path) -> None:
    folder, data = shared / "models/stories260K", shared / "data/tinystories/probe_300.jsonl"
    out = tmp_path / "a.json"
    arguments = ["analyze", "--model", str(folder), "--data", str(data), "--limit", "100", "--json", str(out)]
    assert main(arguments) == 0
    ours = Analysis.load(out)
    assert (len(ours.states), len(ours.blocks), ours.data.n_examples) == (6, 5, 100)
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()[:100]]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    pairs = [(row["prompt"], row["completion"]) for row in rows]
    expected = reference_deviations(model, AutoTokenizer.from_pretrained(folder), pairs)
    for found, wanted in zip(deviations(ours), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_the_lens_at_the_last_state_is_the_models_own_prediction(tiny: Callable[[str], Path]) -> None:
    folder = tiny("gemma2")
    ours = analyze(load_model(str(folder)), task_of(PAIRS), AnalysisSettings(), Silent())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    probabilities, ranks = [], []
    for prompt, completion in PAIRS:
        start, (target, *_) = reference_ids(tokenizer, prompt, completion)
        with torch.no_grad():
            own = model(input_ids=torch.tensor([start])).logits[0, -1].softmax(dim=-1)
        probabilities.append(own[target].item())
        ranks.append((own > own[target]).sum().item() + 1)
    assert ours.states[-1].target_probability == pytest.approx(np.mean(probabilities), abs=1e-5)
    assert ours.states[-1].target_rank_median == np.median(ranks)


def test_all_positions_probe_every_completion_token(tiny: Callable[[str], Path]) -> None:
    folder = tiny("llama")
    settings = AnalysisSettings(positions="all", reading="raw")
    ours = analyze(load_model(str(folder)), task_of(PAIRS), settings, Silent())
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    inverse = torch.linalg.pinv(model.lm_head.weight.detach().double())
    expected = []
    for prompt, completion in PAIRS:
        start, rest = reference_ids(tokenizer, prompt, completion)
        states = reference_states(model, start + rest)
        for offset, target in enumerate(rest):
            here = states[:, len(start) - 1 + offset].double()
            cosine = torch.cosine_similarity(here, inverse[:, target][None], dim=-1)
            expected.append((1 - cosine).detach().numpy())
    assert ours.data.n_positions == len(expected)
    np.testing.assert_allclose(deviations(ours)[1], np.mean(expected, axis=0), atol=1e-4)


def test_gradients_are_those_of_the_mean_loss_over_the_probed_positions(tiny: Callable[[str], Path]) -> None:
    folder = tiny("gpt2")
    names = ("gradient_norm", "relative_gradient", "block_influence")
    ours = analyze(load_model(str(folder)), task_of(PAIRS), AnalysisSettings(criteria=names, batch_size=2), Silent())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    losses, turns = [], []
    for prompt, completion in PAIRS:
        start, (target, *_) = reference_ids(tokenizer, prompt, completion)
        losses.append(cross_entropy(model(input_ids=torch.tensor([start])).logits[:, -1], torch.tensor([target])))
        states = reference_states(model, start)[:, -1]
        turns.append(1 - torch.cosine_similarity(states[:-1], states[1:], dim=-1).detach().numpy())
    torch.stack(losses).mean().backward()
    for block, module in enumerate(model.transformer.h):
        gradients = [parameter.grad for parameter in module.parameters()]
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
        ratios = [(p.grad.norm() / p.norm()).item() for p in module.parameters() if p.norm() > 0]
        assert ours.blocks[block].scores["gradient_norm"] == pytest.approx(norm, rel=1e-3)
        assert ours.blocks[block].scores["relative_gradient"] == pytest.approx(np.mean(ratios), rel=1e-3)
        assert ours.blocks[block].scores["block_influence"] == pytest.approx(np.mean(turns, axis=0)[block], abs=1e-5)


def test_the_same_analysis_twice_gives_the_same_numbers(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")))
    once, again = (analyze(loaded, task_of(PAIRS), AnalysisSettings(), Silent()) for _ in range(2))
    assert (once.states, once.blocks, once.trajectories) == (again.states, again.blocks, again.trajectories)


def test_pictures_on_the_way_do_not_change_those_at_the_end(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watch(Silent):
        drawn: ClassVar[list[int]] = []

        def partial(self, value: Any) -> None:
            self.drawn.append(len(value.trajectories.examples))

    loaded, settings = load_model(str(tiny("llama"))), AnalysisSettings(batch_size=1, criteria=("gradient_norm",))
    alone = analyze(loaded, task_of(PAIRS), settings, Silent())
    monkeypatch.setattr("lsf.lens.analyze.PARTIAL_SECONDS", 0.0)
    watched = analyze(loaded, task_of(PAIRS), settings, Watch())
    assert Watch.drawn == [*range(1, len(PAIRS) + 1)]
    assert watched.trajectories == alone.trajectories


def test_an_analysis_does_not_change_the_loaded_model(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")))
    before = {name: parameter.clone() for name, parameter in loaded.model.named_parameters()}
    analyze(loaded, task_of(PAIRS), AnalysisSettings(), Silent())
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert not parameter.requires_grad
        assert parameter.grad is None
    assert not any(block._forward_pre_hooks or block._forward_hooks for block in loaded.layout.blocks)


def test_a_calibrated_transition_needs_something_answered_right(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")))
    right = [(prompt, f" {answer_of(loaded, prompt)}") for prompt, _ in PAIRS[:4]]
    settings = AnalysisSettings(virtual="calibrated", batch_size=2)
    ours = analyze(loaded, task_of([*PAIRS, *right]), settings, Silent())
    assert ours.data.virtual == "calibrated"
    even = analyze(loaded, task_of([*PAIRS, *right]), AnalysisSettings(), Silent())
    assert deviations(ours)[1] == pytest.approx(deviations(even)[1])
    assert deviations(ours)[0] != pytest.approx(deviations(even)[0], abs=1e-3)
    wrong = [
        (prompt, other) for (prompt, answer), (_, other) in zip(right, right[::-1], strict=True) if answer != other
    ]
    with pytest.raises(BadInputError, match="answers none of these examples right"):
        analyze(loaded, task_of(wrong[:1] * 3), settings, Silent())


def answer_of(loaded: LoadedModel, prompt: str) -> str:
    with torch.no_grad():
        logits = loaded.model(**loaded.tokenizer(prompt, return_tensors="pt")).logits
    return loaded.tokenizer.decode([int(logits[0, -1].argmax())])


def test_tokens_are_counted_of_the_examples_that_were_read(tiny: Callable[[str], Path]) -> None:
    class AfterOne(Silent):
        stop: Stop | None = None

        def progress(self, done: float, total: float | None, message: str = "") -> None:
            self.stop = "keep" if done else None

    loaded = load_model(str(tiny("llama")))
    task = task_of([(" ".join(WORDS[:length]), f" {WORDS[0]}") for length in range(1, 9)])
    settings = AnalysisSettings(batch_size=1)
    one = analyze(loaded, task, settings, AfterOne())
    assert one.trajectories is not None
    (path,) = one.trajectories.examples
    assert one.data.n_examples == 1
    assert one.data.mean_tokens == len(loaded.tokenizer(path.prompt).input_ids) + 1
    assert one.data.attended_tokens == one.data.mean_tokens
    whole = analyze(loaded, task, settings, Silent()).data
    assert whole.mean_tokens == 6.5  # 1 to 8 words, <s> and a completion
    assert whole.attended_tokens == pytest.approx(sum(size**2 for size in range(3, 11)) / 52)


def test_the_share_of_targets_is_that_of_training_with_its_ends_of_text(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")))
    contents = [
        Document("the cat sat on the mat"), Segments(((False, "the"), (True, " cat"))),
        Segments(((True, "the cat"), (False, " sat"))), Tokens((1, 5, 6), (-100, -100, 6)), None,
    ]  # fmt: skip
    examples = tuple(Example("the cat", " sat", content=content) for content in contents)
    for some in (*((one,) for one in examples), examples):
        rows = encode(loaded.tokenizer, some, 64, append_eos=True).rows
        share = sum(row.n_targets for row in rows) / sum(len(row.ids) for row in rows)
        data = analyze(loaded, Task("ends", some, (), ()), AnalysisSettings(criteria=("last",)), Silent()).data
        assert data.target_share == pytest.approx(share)


def test_reading_stops_when_the_ranking_has_settled_and_says_so(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")))
    many = task_of([(f"the {one} sat on {two}", f" {two}") for one in WORDS for two in WORDS])
    whole = analyze(loaded, many, AnalysisSettings(limit=None, batch_size=16), Silent())
    early = analyze(loaded, many, AnalysisSettings(limit=None, settle=True, batch_size=16), Silent())
    assert (whole.data.settled, whole.data.n_examples) == (None, len(WORDS) ** 2)
    assert early.data.settled is True
    assert 64 <= early.data.n_examples < len(WORDS) ** 2
    best = [make_plan(analysis, "deviation", "top_k", 1).blocks for analysis in (whole, early)]
    assert best[0] == best[1]
    few = analyze(loaded, task_of(PAIRS), AnalysisSettings(settle=True), Silent())
    assert (few.data.settled, few.data.n_examples) == (False, 7)
    with pytest.raises(BadInputError, match="a criterion of the forward pass"):
        analyze(loaded, many, AnalysisSettings(settle=True, criteria=("last",)), Silent())


def test_the_likeness_of_positions_is_the_same_however_they_are_read_and_says_how_many_they_are(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, task = load_model(str(tiny("llama"))), task_of(PAIRS * 3)
    monkeypatch.setattr("lsf.lens.trajectories.SAMPLED_POSITIONS", 11)

    def measured(**how: Any) -> Analysis:
        return analyze(loaded, task, AnalysisSettings(criteria=("cka",), positions="all", split="all", **how), Silent())

    found = [measured(batch_size=size, seed=seed) for size, seed in ((1, 0), (4, 0), (4, 5), (64, 1))]
    assert {one.data.sampled_positions for one in found} == {11}
    for other in found[1:]:
        np.testing.assert_allclose(other.scores("cka"), found[0].scores("cka"), atol=1e-5)  # type: ignore[arg-type]
    monkeypatch.setattr("lsf.lens.trajectories.SAMPLED_POSITIONS", 10_000)
    assert measured().data.sampled_positions == measured().data.n_positions
    assert measured().scores("cka") != found[0].scores("cka")


def test_a_plan_by_a_likeness_that_is_unknown_somewhere_is_refused(tiny: Callable[[str], Path]) -> None:
    task = task_of([("the", " dog"), ("a cat the", " sun"), ("moon the", " red"), ("is the", " sky")])
    found = analyze(load_model(str(tiny("llama"))), task, AnalysisSettings(criteria=("cka",), split="all"), Silent())
    assert found.scores("cka")[0] is None  # every prompt ends alike, so state 0 is one and the same
    with pytest.raises(PlanError, match=r"'cka' is not defined at block 0 .* all the same there \(prompts"):
        make_plan(found, "cka", "top_k", 1)
