"""Where a turn lies in a chat whose template writes it otherwise once others follow, or says more ahead of it."""

import json
from typing import Any

import pytest
from tokenizers import AddedToken

from lsf.data.encode import encode
from lsf.data.reading import read_data
from lsf.errors import DataError
from tests.data.chat_templates import TEMPLATES, Template, byte_level

QWEN3 = (
    "{%- set ns = namespace(last=0) -%}"
    "{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}{%- endif -%}{%- endfor -%}"
    "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\n' }}"
    "{%- set content = m.content.split('</think>')[-1].lstrip('\n') if m.role == 'assistant' else m.content -%}"
    "{%- if m.role == 'assistant' and loop.last and loop.index0 > ns.last -%}{{ '<think>\n\n</think>\n\n' }}"
    "{%- endif -%}{{ content }}"
    "{%- for call in m.tool_calls or [] -%}"
    '{{ \'<tool_call>\n\' }}{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}'
    "{{ '}\n</tool_call>' }}{%- endfor -%}{{ '<|im_end|>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
"""Qwen3's own rule, made short: the last turn alone gets an empty think block."""
THOUGHT = "<think>\n\n</think>\n\n"
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>'
CHATML = ("<|im_start|>", "<|im_end|>")


def trained(template: str, special: tuple[str, ...], *rows: dict[str, Any]) -> list[list[str]]:
    """Return the text of each stretch of targets of each row."""
    tokenizer = byte_level(template, special)
    words = ("<tool_call>", "</tool_call>", "<think>", "</think>")
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    task = read_data([*rows, *rows, *rows])
    found = encode(tokenizer, task.split("all"), 10_000, append_eos=True).rows[: len(rows)]
    return [[tokenizer.decode(row.ids[start:end]) for start, end in row.spans] for row in found]


def talk(*said: str) -> dict[str, Any]:
    """Return a chat of a user's and an assistant's turns in turn."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[at % 2], "content": text} for at, text in enumerate(said)]}


def test_the_call_of_a_tool_is_trained_whole_where_the_last_turn_begins_otherwise() -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    chat = [
        {"role": "user", "content": "How warm is Oslo?"}, {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "weather: 7"}, {"role": "assistant", "content": "It is 7 degrees."},
    ]  # fmt: skip
    answer = f"{THOUGHT}It is 7 degrees.<|im_end|>"
    assert trained(QWEN3, CHATML, {"messages": chat}) == [[CALL, answer]]
    shared = [
        {"from": "human", "value": "How warm is Oslo?"},
        {"from": "function_call", "value": json.dumps({"name": "weather", "arguments": {"city": "Oslo"}})},
        {"from": "observation", "value": "7"}, {"from": "gpt", "value": "It is 7 degrees."},
    ]  # fmt: skip
    assert trained(QWEN3, CHATML, {"conversations": shared}) == [[CALL, answer]]


@pytest.mark.parametrize("said", ["<ul><li>one</li></ul>", "one", "<", "two", "<think>\nhm\n</think>\n\n<p>one</p>"])
def test_an_earlier_answer_is_trained_whole_where_the_last_one_begins_otherwise(said: str) -> None:
    kept = said.split("</think>")[-1].lstrip("\n")
    rows = trained(QWEN3, CHATML, talk("Make a list.", said, "And now?", "two"))
    assert rows == [[f"{kept}<|im_end|>", f"{THOUGHT}two<|im_end|>"]]


@pytest.mark.parametrize("head", ["<|start|>{{ m.role }}<|message|>", "{{ m.role }}: "])
@pytest.mark.parametrize("said", ["one", "<b>", "|"])
def test_an_earlier_answer_ends_in_its_own_end_token_where_the_last_one_has_another(said: str, head: str) -> None:
    harmony = (
        f"{{% for m in messages %}}{head}{{{{ m.content }}}}"
        "{% if loop.last and m.role == 'assistant' %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}"
        f"{{% if add_generation_prompt %}}{head.replace('{{ m.role }}', 'assistant')}{{% endif %}}"
    )
    special = ("<|start|>", "<|message|>", "<|end|>", "<|return|>")
    rows = trained(harmony, special, talk("Make a list.", said, "And now?", "two"))
    assert rows == [[f"{said}<|end|>", "two<|return|>"]]


@pytest.mark.parametrize(
    ("user", "bot"), [("<|go|><|user|>", "<|go|><|bot|>"), ("[INST] ", ""), ("<|user|>", "<|bot|>")]
)
def test_an_earlier_answer_without_an_end_takes_no_token_of_the_next_turn(user: str, bot: str) -> None:
    template = (
        f"{{% for m in messages %}}{{% if m.role == 'user' %}}{user}{{{{ m.content }}}}[/INST]"
        f"{{% else %}}{bot}{{{{ m.content }}}}{{% if loop.last %}}{{{{ eos_token }}}}{{% endif %}}{{% endif %}}"
        f"{{% endfor %}}{{% if add_generation_prompt %}}{bot}{{% endif %}}"
    )
    special = ("<|go|>", "<|user|>", "<|bot|>", "[INST]", "[/INST]")
    assert trained(template, special, talk("Make a list.", "<b>", "And now?", "two")) == [["<b>", "two</s>"]]


@pytest.mark.parametrize("family", TEMPLATES, ids=lambda one: one.name)
@pytest.mark.parametrize("said", ["a", "d", "s", "n", "end", "<", "the"])
def test_a_short_answer_is_not_taken_for_letters_of_the_template(family: Template, said: str) -> None:
    talks = talk("Question?", said), talk("Question?", said, "And now?", "b"), talk("Question?", "b")
    ends = f"{said}{family.end}", f"b{family.end}"
    rows = trained(family.plain, family.tokens, *talks)  # the first row decides how the later ones are read
    assert [[text.lstrip() for text in row] for row in rows] == [[ends[0]], list(ends), [ends[1]]]


@pytest.mark.parametrize("family", TEMPLATES, ids=lambda one: one.name)
@pytest.mark.parametrize("said", ["a", "d", "n", "end", "<"])
def test_a_short_answer_that_comes_first_is_not_taken_for_letters_of_the_template(family: Template, said: str) -> None:
    first = {"messages": [{"role": "assistant", "content": said}, *talk("Question?", said)["messages"]]}
    (row,) = trained(family.plain, family.tokens, first)
    assert [text.lstrip() for text in row] == [f"{said}{family.end}"] * 2


@pytest.mark.parametrize("said", ["n", "think", "<"])
def test_a_short_answer_is_not_taken_for_a_special_token_that_the_template_writes_ahead_of_it(said: str) -> None:
    special = (*CHATML, "<think>", "</think>")
    assert trained(QWEN3, special, talk("Make a list.", said)) == [[f"{THOUGHT}{said}<|im_end|>"]]


@pytest.mark.parametrize("said", ["a", "s", "assistant"])
def test_a_template_without_a_generation_prompt_trains_no_letters_of_its_own(said: str) -> None:
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
    assert trained(template, CHATML, talk("Who?", said, "And?", "b")) == [[f"{said}<|im_end|>", "b<|im_end|>"]]


THINKS = (
    "{% for m in messages %}{% if m.role == 'user' %}<User>{{ m.content }}{% else %}HEAD"
    "{{ m.content.split('</think>')[-1] }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASK{% endif %}"
)
"""A template whose generation prompt opens a think block, which no answer in a chat has, as DeepSeek-R1's."""


@pytest.mark.parametrize(
    "said", ["hello", "<ul>", "<thinker>", "t", "<think>\nhm\n</think>hello", "<think>\n</think>a"]
)
@pytest.mark.parametrize(
    ("head", "ask"),
    [("<Assistant>", "<think>{{ '\\n' }}"), ("<|im|>assistant\n", "<think>"), ("", "<think>{{ '\\n' }}")],
)
def test_an_answer_begins_where_the_prompt_opens_a_block_that_it_has_not(said: str, head: str, ask: str) -> None:
    template, special = THINKS.replace("HEAD", head).replace("ASK", head + ask), ("<User>", "<Assistant>", "<|im|>")
    wanted = said.split("</think>")[-1]
    rows = trained(template, special, talk("Who?", said), talk("Who?", said, "And?", "b"), talk("Who?", "b"))
    assert rows == [[f"{wanted}</s>"], [f"{wanted}</s>", "b</s>"], ["b</s>"]]
    pairs = [{"prompt": "Who?", "completion": said}]
    assert trained(template, special, *pairs) == [[f"{wanted}</s>"]]


def test_an_answer_that_begins_otherwise_than_the_prompt_is_refused_with_advice_that_helps() -> None:
    template = THINKS.replace("HEAD", "<Assistant>says ").replace("ASK", "<Assistant>thinks ")
    said = (
        "Row 1: the chat template begins message 2 otherwise than its generation prompt, .* accepted is a template with"
    )
    for row in (talk("Who?", "b"), talk("Who?", "b", "And?", "c")):
        with pytest.raises(DataError, match=said):
            trained(template, ("<User>", "<Assistant>"), row)
    cut = TEMPLATES[0].plain.replace(
        "{{ m['content'] }}<|im_end|>{{", "{% if loop.last %}{{ m['content'] }}{% endif %}{{"
    )
    with pytest.raises(
        DataError, match=r"Row 1: the chat template writes message 2, .* accepted is a template with gen"
    ):
        trained(cut, CHATML, talk("Who?", "one", "And?"))


def said_by_itself(*said: str | dict[str, Any]) -> list[dict[str, Any]]:
    """Return turns of the assistant, one behind the other."""
    return [{"role": "assistant", **({"content": turn} if isinstance(turn, str) else turn)} for turn in said]


def test_answers_in_a_row_are_each_trained_where_the_template_writes_them_otherwise_at_the_end() -> None:
    user, last = {"role": "user", "content": "one"}, f"{THOUGHT}one<|im_end|>"
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    chats = {
        "at the end": ([user, *said_by_itself("one", "one")], ["one<|im_end|>", last]),
        "three": ([user, *said_by_itself("a", "one", "one")], ["a<|im_end|>", "one<|im_end|>", last]),
        "before a question": ([user, *said_by_itself("a", "b"), user], ["a<|im_end|>", "b<|im_end|>"]),
        "a call behind words": (
            [user, *said_by_itself("I look.", {"content": "", "tool_calls": [call]}), {"role": "tool", "content": "7"},
             *said_by_itself("one")],
            ["I look.<|im_end|>", CALL, last],
        ),
        "the prompt's words": (
            [user, *said_by_itself("assistant\n", "assistant\na")],
            ["assistant\n<|im_end|>", f"{THOUGHT}assistant\na<|im_end|>"],
        ),
    }  # fmt: skip
    for name, (messages, wanted) in chats.items():
        assert trained(QWEN3, CHATML, {"messages": messages}) == [wanted], name


@pytest.mark.parametrize("as_text", [False, True], ids=["objects", "JSON text"])
@pytest.mark.parametrize(
    "written", ["{{ given | tojson }}", "{{ 'json ' + given }}", "{{ given }}"], ids=["tojson", "joined", "printed"]
)
def test_arguments_of_a_call_are_written_as_json_once_however_file_and_template_have_them(
    written: str, as_text: bool
) -> None:
    template = QWEN3.replace(
        "{{ call.function.arguments | tojson }}", "{%- set given = call.function.arguments -%}" + written
    )
    assert template != QWEN3
    held = {"city": "Ålesund", "days": 2}
    given = {"name": "weather", "arguments": json.dumps(held, ensure_ascii=False) if as_text else held}
    rows = [
        {"messages": [{"role": "user", "content": "How warm?"}, {"role": "assistant", "content": None, **called}]}
        for called in ({"tool_calls": [{"type": "function", "function": given}]}, {"function_call": given})
    ]
    for row in rows:
        ((text,),) = trained(template, CHATML, row)
        assert text.count('{"city": "Ålesund", "days": 2}') == 1 and "\\" not in text
