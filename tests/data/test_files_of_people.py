"""Files as people have them are recognised without options: the first row's prompt and target, and what is told."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lsf.data.contents import Chat
from lsf.data.report import format_lines
from lsf.data.sources import load_task
from lsf.data.task import Task
from lsf.errors import DataError

Q, A = "Where do herons sleep?", "In trees."
QA = f"Question: {Q}\nAnswer:"
ROW: dict[str, Any] = {"question": Q, "answer": A}
TURNS = [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]
LETTERED = "Question: Which is a bird?\nA. Oak\nB. Heron\nC. Pike\nAnswer:"
PICK = {"question": "Which is a bird?", "choices": ["Oak", "Heron", "Pike"]}
TALK = f"\n\nHuman: Hello\n\nAssistant: Hi.\n\nHuman: {Q}\n\nAssistant:"


def lines(*rows: Any) -> str:
    """Return rows as JSON Lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


FILES: dict[str, tuple[str | bytes, str, str, str, str]] = {
    "dolly.jsonl": (
        lines({"instruction": Q, "context": "On herons.", "response": A, "category": "qa"}), "known",
        f"On herons.\nInstruction: {Q}\nAnswer:", f" {A}", "not used: category.",
    ),
    "dolly-empty.jsonl": (
        lines({"instruction": Q, "context": "", "response": A}), "known", f"Instruction: {Q}\nAnswer:", f" {A}", "",
    ),
    "input-response.jsonl": (
        lines({"instruction": Q, "input": "herons", "response": A}), "known",
        f"Instruction: {Q}\nInput: herons\nAnswer:", f" {A}", "instruction, input, response",
    ),
    "alpaca.json": (
        json.dumps([{"instruction": Q, "input": "", "output": A, "text": "x"}]), "alpaca",
        f"Instruction: {Q}\nAnswer:", f" {A}", "not used: text.",
    ),
    "orca.jsonl": (
        lines({"id": "1", "system_prompt": "Be short.", "question": Q, "response": A}), "known",
        f"Be short.\n{QA}", f" {A}", "1 row: the system prompt stands before",
    ),
    "system-pairs.jsonl": (
        lines({"system": "Be short.", "prompt": Q, "completion": A}), "pairs", f"Be short.\n{Q}", A, "system prompt",
    ),
    "system-chosen.jsonl": (
        lines({"system": "Be short.", "question": Q, "chosen": A, "rejected": "No."}), "preference",
        f"Be short.\n{Q}", A, "not used: rejected.",
    ),
    "hh.jsonl": (
        lines({"chosen": f"{TALK} {A}", "rejected": f"{TALK} No."}), "preference", TALK, f" {A}", "the last answer",
    ),
    "mmlu.jsonl": (lines({**PICK, "answer": 1, "subject": "x"}), "known", LETTERED, " B", "written with letters"),
    "choice-text.jsonl": (lines({**PICK, "answer": "Heron"}), "known", LETTERED, " B", ""),
    "choice-letter.jsonl": (lines({**PICK, "answer": "B"}), "known", LETTERED, " B", ""),
    "options.jsonl": (
        lines({"question": "Which is a bird?", "options": {"A": "Oak", "B": "Heron", "C": "Pike"}, "answer": "B"}),
        "known", LETTERED, " B", "",
    ),
    "arc.jsonl": (
        lines({**PICK, "choices": {"text": PICK["choices"], "label": ["1", "2", "3"]}, "answerKey": "2"}), "known",
        LETTERED, " B", "",
    ),
    "digits.jsonl": (
        lines({**PICK, "choices": {"text": PICK["choices"], "label": ["1", "2", "3"]}, "answerKey": 2}), "known",
        LETTERED, " B", "",
    ),
    "named.jsonl": (
        lines({"question": PICK["question"], "options": {"1": "Oak", "2": "Heron", "3": "Pike"}, "answer": 2}), "known",
        LETTERED, " B", "",
    ),
    "letters.csv": (
        f"id,prompt,A,B,C,answer\n0,{Q},Sea,Trees,Sky,B\n", "known",
        f"{Q}\nA. Sea\nB. Trees\nC. Sky\nAnswer:", " B", "not used: id.",
    ),
    "hellaswag.jsonl": (
        lines({"ctx": "A heron", "endings": ["barks.", "flies."], "label": "1"}), "known",
        "A heron\nA. barks.\nB. flies.\nAnswer:", " B", "",
    ),
    "boolq.jsonl": (
        lines({"question": "Is it so", "passage": "It is.", "answer": True}), "known",
        "It is.\nQuestion: Is it so\nAnswer:", " True", "holds true or false, which is written True or False",
    ),
    "squad.jsonl": (
        lines({"context": "On herons.", "question": Q, "answers": {"text": [A, "Trees"], "answer_start": [0, 3]}}),
        "known", f"On herons.\n{QA}", f" {A}", "several answers, of which the first is learned",
    ),
    "nq.jsonl": (lines({"question": Q, "answer": [A, "Trees"]}), "known", QA, f" {A}", "several answers"),
    "opus.jsonl": (
        lines({"translation": {"en": "heron", "de": "Reiher"}}), "known", "en: heron\nde:", " Reiher", "columns en, de",
    ),
    "languages.tsv": ('en\tfr\n"Hello" he said\tBonjour\n', "known", 'en: "Hello" he said\nfr:', " Bonjour", ""),
    "sentiment.json": (
        json.dumps([{"text": "Fine.", "sentiment": "good", "id": 4}]), "known", "Text: Fine.\nLabel:", " good", "id.",
    ),
    "stars.csv": ("text,stars\nFine,5\n", "known", "Text: Fine\nLabel:", " 5", ""),
    "intent.jsonl": (lines({"text": "Hi", "intent": "greet"}), "known", "Text: Hi\nLabel:", " greet", ""),
    "category.jsonl": (lines({"text": "Hi", "category": "talk"}), "known", "Text: Hi\nLabel:", " talk", ""),
    "tweet.csv": ("id,tweet,label\n1,Hi,0\n", "known", "Text: Hi\nLabel:", " 0", "not used: id."),
    "emotions.jsonl": (
        lines({"text": "Hi", "labels": [26, 25]}), "known", "Text: Hi\nLabel:", " 26, 25", "joined by commas",
    ),
    "label-text.jsonl": (
        lines({"text": "Lost", "label": 41, "label_text": "lost_card"}), "known", "Text: Lost\nLabel:", " lost_card",
        "not used: label.",
    ),
    "label-both.jsonl": (
        lines({"text": "Lost", "label": "card", "label_text": "x"}), "known", "Text: Lost\nLabel:", " card",
        "label_text",
    ),
    "mrpc.csv": (
        "sentence1,sentence2,label\nHe left.,He went.,1\n", "known",
        "Sentence 1: He left.\nSentence 2: He went.\nLabel:", " 1", "",
    ),
    "kto.jsonl": (
        lines({"prompt": Q, "completion": A, "label": 1}, {"prompt": Q, "completion": "No.", "label": 0}), "unpaired",
        Q, A, "2 rows: the label, 1 or 0, says whether the completion is good.",
    ),
    "kto.csv": (f"prompt,completion,label\n{Q},{A},True\n{Q},No.,False\n", "unpaired", Q, A, "1 row: left out"),
    "scores.jsonl": (
        lines(*({"prompt": Q, "completion": A, "label": n} for n in (1, 3))), "pairs", Q, A, "not used: label.",
    ),
    "semicolons.csv": (
        "\ufeffquestion;answer\nWhat is 1,5 + 1?;2,5\n".encode(), "known", "Question: What is 1,5 + 1?\nAnswer:",
        " 2,5",
        "separates its values by semicolons",
    ),
    "tabs.csv": (f"question\tanswer\n{Q}\t{A}\n", "known", QA, f" {A}", "by tabs"),
    "bars.csv": (f"question|answer\n{Q}|{A}\n", "known", QA, f" {A}", "by vertical bars"),
    "sep.csv": (f"sep=;\r\nquestion;answer\r\n{Q};{A}\r\n", "known", QA, f" {A}", ""),
    "cp1252.csv": (
        f"question,answer\n{Q},“Für 5 €”\n".encode("cp1252"), "known", QA, " “Für 5 €”", "was read as cp1252",
    ),
    "columns.json": (json.dumps({"prompt": [Q, "x"], "completion": [A, "y"]}), "pairs", Q, A, "an object of columns"),
    "pandas.json": (json.dumps({"question": {"0": Q}, "answer": {"0": A}}), "known", QA, f" {A}", "object of columns"),
    "mixed.json": (
        json.dumps({"question": {"1": Q, "0": "x"}, "answer": {"0": "y", "1": A}}), "known", QA, f" {A}", "of columns",
    ),
    "splits.json": (
        json.dumps({"train": [ROW] * 3, "test": [ROW]}), "known", QA, f" {A}", "no split called validation",
    ),
    "chats.jsonl": (lines(TURNS, TURNS), "chat", f"user: {Q}", A, ""),
    "capybara.jsonl": (
        lines({"conversation": [{"input": Q, "output": A}]}), "sharegpt", f"user: {Q}", A, "pairs of input and output",
    ),
    "guanaco.jsonl": (
        lines({"text": f"### Human: {Q}### Assistant: {A}"}), "text", "", f"### Human: {Q}### Assistant: {A}",
        "all of them are trained",
    ),
    "response.jsonl": (lines({"prompt": Q, "response": A}), "known", f"{Q}\n", A, f"the user says {'{prompt}'!r}"),
    "code.jsonl": (lines({"problem": Q, "solution": A}), "known", f"Problem: {Q}\nSolution:", f" {A}", ""),
    "bigbench.json": (json.dumps({"examples": [{"input": Q, "target": A}]}), "known", f"{Q}\n", A, ""),
    "flan.jsonl": (lines({"inputs": Q, "targets": A, "task": "x"}), "known", f"{Q}\n", A, "not used: task."),
    "samsum.csv": (f"dialogue,summary\n{Q},{A}\n", "known", f"Dialogue: {Q}\nSummary:", f" {A}", ""),
    "papers.csv": (f"title,abstract\n{Q},{A}\n", "known", f"Title: {Q}\nAbstract:", f" {A}", ""),
    "pile.jsonl": (lines({"text": A, "meta": {"from": "x"}}), "text", "", A, "not used: meta."),
    "sql.jsonl": (lines({**ROW, "context": "TABLE t"}), "known", f"TABLE t\n{QA}", f" {A}", ""),
    "gsm8k.jsonl": (lines({"question": Q, "answer": "1+1=2\n#### 2"}), "known", QA, " 1+1=2\n#### 2", ""),
    "spaces.csv": (f'"Prompt "," Completion",Notes\n{Q},{A},ok\n', "pairs", Q, A, "not used: Notes."),
    "values.csv": (f"question,answer\n{Q},00501\nSodium?,NA\n", "known", QA, " 00501", ""),
}  # fmt: skip


def read(name: str, content: str | bytes, folder: Path) -> Task:
    """Return the task of a file that is written first."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_task(str(path))


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_recognised_and_its_first_row_is_what_people_mean(name: str, tmp_path: Path) -> None:
    content, kind, prompt, target, told = FILES[name]
    task = read(name, content, tmp_path)
    first = (*task.rows, *task.train)[0]
    assert (task.seen.formats[0][0], first.prompt, first.completion) == (kind, prompt, target)
    assert len(task.seen.formats) == 1
    assert told in "\n".join(format_lines(task))


def test_a_chat_gets_the_system_prompt_and_earlier_turns_as_turns(tmp_path: Path) -> None:
    wanted = {
        "orca.jsonl": [("system", "Be short."), ("user", Q), ("assistant", A)],
        "system-pairs.jsonl": [("system", "Be short."), ("user", Q), ("assistant", A)],
        "hh.jsonl": [("user", "Hello"), ("assistant", "Hi."), ("user", Q), ("assistant", A)],
        "mmlu.jsonl": [("user", LETTERED.removesuffix("\nAnswer:")), ("assistant", "B")],
    }
    for name, turns in wanted.items():
        content = read(name, FILES[name][0], tmp_path).train[0].content
        assert isinstance(content, Chat)
        assert [(turn["role"], turn["content"]) for turn in content.messages] == turns
        assert content.given == len(turns) - 1 or not name.startswith("hh")


def test_folders_of_shards_of_the_hubs_layout_and_of_texts_are_read(tmp_path: Path) -> None:
    for folder in ("hub/data", "flat"):
        (tmp_path / folder).mkdir(parents=True)
        for part, count in enumerate((2, 3)):
            pd.DataFrame([ROW] * count).to_parquet(tmp_path / folder / f"train-0000{part}-of-00002.parquet")
        pd.DataFrame([ROW]).to_parquet(tmp_path / folder / "test-00000-of-00001.parquet")
        task = load_task(str(tmp_path / folder.split("/")[0]))
        assert (len(task.train) + len(task.validation), len(task.test)) == (5, 1)
    (tmp_path / "flat" / "train.jsonl").write_text(lines(ROW))
    with pytest.raises(DataError, match="two files for train"):
        load_task(str(tmp_path / "flat"))
    for name in ("a.md", "sub/b.txt"):
        read(f"book/{name}", f"# {name}\n", tmp_path)
    assert [row.completion for row in load_task(str(tmp_path / "book")).train] == ["# a.md\n", "# sub/b.txt\n"]


def test_templates_reach_nested_values(tmp_path: Path) -> None:
    (path := tmp_path / "d.jsonl").write_text(lines({"q": {"text": Q}, "answers": [{"text": A}], "id": 1}))
    task = load_task(str(path), "{q.text}", " {answers.0.text}")
    assert (task.train[0].prompt, task.train[0].completion) == (Q, f" {A}")
    assert "not used: id." in task.seen.notes
    with pytest.raises(DataError, match=r"line 1: the column 'answers' holds nothing at 'answers\.1\.text'"):
        load_task(str(path), "{q.text}", "{answers.1.text}")
    with pytest.raises(DataError, match=r"a nested value is named by its path, such as \{q\.text\}"):
        load_task(str(path))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "d.csv",
            f"question,answer\n{Q},\n",
            "has no row that can be learned from; 1 row: left out, since the answer is empty (line 2).",
        ),
        ("d.jsonl", lines({**PICK, "answer": 7}), "the answer '7' is none of its 3 choices"),
        ("d.jsonl", lines({**PICK, "choices": ["2", "1", "0"], "answer": "2"}), "may be an index or the text of a"),
        ("d.jsonl", lines({**PICK, "choices": [1, 2, 3, 4], "answer": 2}), "may be an index or the text of a"),
        ("d.jsonl", lines({"question": "?", "a": 1.0, "b": 2.0, "c": 3.0, "answer": 2}), "may be an index or the text"),
        ("d.jsonl", lines({"translation": {"en": "a"}}), "does not hold two languages"),
        ("d.jsonl", lines({"chosen": "a", "rejected": "b"}), "it has chosen and no prompt"),
        ("d.json", '{"a": [1], "b": [1, 2]}', "d.json holds an object; a list of objects was expected"),
        ("d.jsonl", '{"prompt": "a', "line 1 is not valid JSON: Unterminated string starting at column 12."),
        ("d.xlsx", "x", "Save the sheet as CSV."),
        ("d.csv", f'messages\n"{TURNS}"\n', "holds a list as Python writes it"),
        ("d.jsonl", "", "d.jsonl is empty; at least one row was expected"),
        ("d.csv", "question;answer\na;b;c\n", "its columns are: question;answer"),
    ],
)
def test_what_cannot_be_read_names_a_way_on(name: str, content: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(name, content, tmp_path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("templates", [(None, None), ("{question}", " {answers.text.0}")])
def test_a_question_whose_list_of_answers_is_empty_is_left_out(
    templates: tuple[str | None, str | None], tmp_path: Path
) -> None:
    rows = [
        {"question": f"Who is {n}?", "answers": {"text": [] if n % 3 == 0 else [f"{n}", "he"], "answer_start": []}}
        for n in range(12)
    ]
    (tmp_path / "squad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = load_task(str(tmp_path / "squad.jsonl"), *templates)
    assert [row.completion for row in task.rows] == [f" {n}" for n in range(12) if n % 3]
    assert any("left out" in note and "(line 1, line 4, line 7 and 1 more)" in note for note in task.seen.notes)
    for held in (None, {"text": None}, {}):
        with pytest.raises(DataError, match=r"line 13"):
            (tmp_path / "null.jsonl").write_text(
                "".join(json.dumps(row) + "\n" for row in [*rows, {"question": "Who?", "answers": held}]),
                encoding="utf-8",
            )
            load_task(str(tmp_path / "null.jsonl"), *templates)


def test_labels_of_a_list_that_are_none_are_no_word_of_the_answer(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "labels": [["a", None, "b"], [None], []][n % 3]} for n in range(9)]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = load_task(str(tmp_path / "labels.jsonl"))
    assert [row.completion for row in task.rows] == [" a, b"] * 3
    assert task.seen.n_left_out == 6


@pytest.mark.parametrize(
    ("choices", "answer", "letter"),
    [
        ([0, 1, 2, 3], 2, "C"),  # both readings are the same
        ([1, 2, 3, 4], 4, "D"),  # there is no such index
        ([10, 20, 30], 1, "B"),  # there is no such choice
        (["1", "2", "3", "4"], 2, "C"),  # a number is none of these texts
        ([1, 2, 3, 4], "B", "B"),
        ({"text": [1, 2, 3], "label": ["1", "2", "3"]}, 2, "B"),  # they are called so
        ([1.0, 2.0], 2, "B"),
        ([True, False], 1, "B"),
    ],
)
def test_a_number_is_an_index_unless_it_may_be_a_choice(
    choices: Any, answer: int | str, letter: str, tmp_path: Path
) -> None:
    (tmp_path / "d.jsonl").write_text(lines({**PICK, "choices": choices, "answer": answer}), encoding="utf-8")
    assert load_task(str(tmp_path / "d.jsonl")).rows[0].completion == f" {letter}"
