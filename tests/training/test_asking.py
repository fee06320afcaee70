"""A prompt of one's own: the same tokens as without streaming, by base, tuned model and grafts, raw and as a chat."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lsf.cli.main import main
from lsf.errors import BadInputError, RunError
from lsf.models.loading import load_model
from lsf.models.writing import Drawn, generate
from lsf.plans.plan import Plan
from lsf.runs.answers import AnswerSettings, Voice
from lsf.runs.store import load_run
from lsf.training.artefacts import load_tuned
from lsf.training.asking import ask, prompt_row
from tests.tiny import tiny_model, tiny_tokenizer
from tests.toy import tuned

PROMPTS = ("the cat sat on", "moon <b>was</b>")
CHAT = (
    "{% for m in messages %}{{ m['role'] == 'user' and 'one' or 'two' }} {{ m['content'] }} "
    "{% if m['role'] == 'assistant' %}</s>{% endif %}{% endfor %}{% if add_generation_prompt %}two {% endif %}"
)


@pytest.fixture
def run(loaded, task, spec, folder) -> Path:
    asked = replace(spec, plan=Plan("tiny", 4, (1, 3)))
    place = folder(asked)
    tuned(loaded, task, asked, place)
    return place


def written(model, loaded, prompt, n_new, seed=None) -> list[int]:
    """What transformers' generate writes, without a streamer."""
    ids = torch.tensor([loaded.tokenizer(prompt)["input_ids"]])
    drawn = [] if seed is None else [Drawn(seed)]
    return generate(model, ids, n_new, [loaded.tokenizer.eos_token_id], drawn)[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("seed", [None, 3])
def test_streaming_gives_the_tokens_that_generate_gives(loaded, run, seed):
    told = []
    settings = AnswerSettings(tokens=9, seed=seed)
    answers = ask(loaded, [Voice(), Voice(run)], PROMPTS, settings, told.append)
    models = [loaded.model, load_tuned(run, loaded)]
    wanted = [written(model, loaded, prompt, 9, seed) for model in models for prompt in PROMPTS]
    assert [list(answer.ids) for answer in answers] == wanted
    assert wanted[0] != wanted[2]
    for answer in answers:
        parts = [one for one in told if (one.voice, one.prompt) == (answer.voice, answer.prompt)]
        assert [one.ids for one in parts[:-1]] == [answer.ids[:n] for n in range(len(answer.ids) + 1)]
        assert [one.done for one in parts] == [False] * (len(parts) - 1) + [True]
        assert answer.text.startswith(parts[-2].text)
        assert answer.ended == (answer.ids[-1] == loaded.tokenizer.eos_token_id)
        assert answer.rendering == "as it stands"


def test_the_lens_ends_in_the_first_token_of_the_answer_and_a_graft_changes_it_from_its_block_up(loaded, run):
    voices = [Voice(), Voice(run), Voice(run, "alone", (3,)), Voice(run, "without", (3,))]
    base, whole, alone, without = ask(loaded, voices, PROMPTS[:1], AnswerSettings(tokens=1), lambda _: None)
    for answer in (base, whole, alone, without):
        assert len(answer.lens) == 5
        assert answer.lens[-1].token == loaded.tokenizer.convert_ids_to_tokens(answer.ids[0])
    assert alone.lens[:4] == base.lens[:4]
    assert alone.lens[4] != base.lens[4]
    assert without.lens[:4] == whole.lens[:4]
    assert without.lens[2:] != base.lens[2:]


def test_a_run_on_chats_gets_prompts_as_a_users_turn(task, spec, folder, tmp_path):
    place = tmp_path / "chat"
    tiny_model("llama").save_pretrained(place)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(place)
    data = tmp_path / "pairs.jsonl"
    rows = [{"prompt": row.prompt, "completion": row.completion.strip()} for row in task.train]
    data.write_text("\n".join(json.dumps(row) for row in rows))
    runs = tmp_path / "runs"
    asked = ["--model", str(place), "--data", str(data), "--blocks", "2", "--steps", "2", "--device", "cpu"]
    assert main(["tune", *asked, "--runs", str(runs)]) == 0
    (folder_,) = runs.iterdir()
    loaded, run = load_model(str(place), "float32", "cpu"), load_run(folder_)
    row, how = prompt_row(loaded, "the cat sat", run)
    assert how == "chat, by the model's template"
    assert loaded.tokenizer.decode(row.ids[: row.asked]) == "one the cat sat two"
    assert [row.ids[place] for place in row.ends] == [loaded.tokenizer.eos_token_id]
    (plain,) = (prompt_row(loaded, "the cat sat", None)[0],)
    assert loaded.tokenizer.decode(plain.ids) == "<s> the cat sat"


def test_prompts_and_runs_that_cannot_be_asked_are_told_in_one_sentence(loaded, run, spec, folder):
    settings = AnswerSettings(tokens=2)
    with pytest.raises(BadInputError, match="A prompt is empty"):
        ask(loaded, [Voice()], ["the cat", "  "], settings, lambda _: None)
    with pytest.raises(BadInputError, match=r"The prompt has 65 tokens and .* reads 64"):
        ask(loaded, [Voice()], ["cat " * 64], settings, lambda _: None)
    with pytest.raises(BadInputError, match="did not tune block 2; it tuned: block 1, block 3"):
        ask(loaded, [Voice(run, "alone", (2,))], ["the cat"], settings, lambda _: None)
    with pytest.raises(RunError, match=r"has no tuned model: .*Accepted is a run that ended well"):
        ask(loaded, [Voice(folder(spec))], ["the cat"], settings, lambda _: None)
    with pytest.raises(BadInputError, match="tokens is 0; it must lie between 1 and"):
        AnswerSettings(tokens=0)


def test_writing_ends_where_asked(loaded):
    class Enough(Exception):
        pass

    left = iter(range(3))

    def check() -> None:
        if next(left, None) is None:
            raise Enough

    told = []
    with pytest.raises(Enough):
        ask(loaded, [Voice()], PROMPTS[:1], AnswerSettings(tokens=9), told.append, check)
    assert 1 <= len(told[-1].ids) <= 3


def test_the_commands_print_answers_and_the_graft_and_write_json(tiny, task, tmp_path, capsys):
    data, runs, out = tmp_path / "toy.jsonl", tmp_path / "runs", tmp_path / "out.json"
    rows = [{"prompt": row.prompt, "completion": row.completion} for row in (*task.train, *task.test)]
    data.write_text("\n".join(json.dumps(row) for row in rows))
    asked = ["--data", str(data), "--steps", "4", "--device", "cpu", "--runs", str(runs), "--learning-rate", "0.01"]
    for family, blocks in (("llama", "1,3"), ("gpt2", "2")):
        assert main(["tune", "--model", str(tiny(family)), "--blocks", blocks, *asked]) == 0
    other, run = sorted(map(str, runs.iterdir()), key=lambda place: "blocks-1-3" in place)
    capsys.readouterr()

    prompts = ["--prompt", "the cat \x1b[2Jsat", "--prompt", "moon was", "--tokens", "5"]
    assert main(["ask", run, *prompts, "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "At most 5 new tokens; always the most likely token." in shown
    assert shown.count("base model, the prompt as it stands") == shown.count("blocks 1, 3, full (") == 2
    assert "\x1b" not in shown
    assert "  by block: embedding " in shown
    answers = json.loads(out.read_text())["answers"]
    assert len(answers) == 4
    for answer in answers:
        assert f">{answer['text']}" in shown
    assert main(["ask", run, *prompts, "--json", "-", "--seed", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"] == {"tokens": 5, "seed": 1}
    assert main(["ask", run, other, *prompts]) == 2
    assert "whose weights differ; ask runs of one model at a time" in capsys.readouterr().err

    assert main(["graft", run, "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    for words in ("floor ", "base + block 1 ", "tuned - block 3 ", "over the floor"):
        assert words in shown
    assert json.loads(out.read_text()) == json.loads((Path(run) / "graft.json").read_text())
    assert main(["graft", str(tmp_path / "none")]) == 2
    assert "There is no run folder" in capsys.readouterr().err
