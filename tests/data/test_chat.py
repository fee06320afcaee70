"""Chats: what is rendered, which tokens are trained, what is refused, and what is told."""

import json
from dataclasses import replace
from typing import Any

import pytest

from lsf.data.contents import Chat, DataOptions, make_chat, needs_answer, read_turns
from lsf.data.converting import Tally, Work, pair_example
from lsf.data.encode import EncodedExample, Encoding, encode
from lsf.data.rendering import PLAIN_TEMPLATE
from lsf.data.task import Example
from lsf.errors import DataError
from tests.data.chat_templates import TEMPLATES, Template, byte_level

ASKED, SAID = {"role": "user", "content": "what is blue?"}, {"role": "assistant", "content": "the sky."}
AGAIN, MORE = {"role": "user", "content": "and?"}, {"role": "assistant", "content": "the sea"}
TALK = (ASKED, SAID, AGAIN, MORE)


def chat(*turns: dict[str, Any], given: int = 0, row: int | None = 1, **options: Any) -> Example:
    return Example("", "", row, make_chat(turns, DataOptions(**options), given=given))


def trained(tokenizer: Any, row: EncodedExample) -> list[str]:
    """Return the text of each stretch of targets."""
    return [tokenizer.decode(row.ids[start:end]) for start, end in row.spans]


def encoded(tokenizer: Any, *examples: Example, length: int = 10_000) -> Encoding:
    return encode(tokenizer, examples, length, append_eos=True)


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda one: one.name)
def test_every_family_trains_what_the_assistant_says_and_the_end_of_its_turn(template: Template) -> None:
    tokenizer = byte_level(template.plain, template.tokens)
    row = encoded(tokenizer, chat(*TALK)).rows[0]
    wanted = [f"the sky.{template.end}", f"the sea{template.end}"]
    assert [text.lstrip() for text in trained(tokenizer, row)] == wanted
    assert row.ids == tuple(tokenizer.apply_chat_template(list(TALK), tokenize=True, return_dict=False))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda one: one.name)
def test_where_the_assistant_speaks_first_its_words_alone_are_trained(template: Template) -> None:
    tokenizer = byte_level(template.plain, template.tokens)
    row = encoded(tokenizer, chat(SAID, ASKED, MORE)).rows[0]
    assert [text.lstrip() for text in trained(tokenizer, row)] == [f"the sky.{template.end}", f"the sea{template.end}"]


def test_a_system_prompt_that_the_template_adds_before_a_first_answer_is_no_target() -> None:
    own = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    tokenizer = byte_level(own + TEMPLATES[0].plain, TEMPLATES[0].tokens)
    assert trained(tokenizer, encoded(tokenizer, chat(SAID)).rows[0]) == ["the sky.<|im_end|>"]
    assert trained(tokenizer, encoded(tokenizer, chat(SAID, AGAIN, MORE)).rows[0]) == [
        "the sky.<|im_end|>",
        "the sea<|im_end|>",
    ]


def test_an_answer_of_weight_0_is_no_target() -> None:
    tokenizer = byte_level(TEMPLATES[0].plain, TEMPLATES[0].tokens)
    turns, _ = read_turns([ASKED, SAID | {"weight": 0}, AGAIN, MORE | {"weight": 1}], "messages")
    assert trained(tokenizer, encoded(tokenizer, chat(*turns)).rows[0]) == ["the sea<|im_end|>"]
    with pytest.raises(DataError, match=r"has the weight 0\.5; 0 or 1 was expected"):
        read_turns([ASKED, SAID | {"weight": 0.5}], "messages")
    with pytest.raises(DataError, match="all have the weight 0"):
        needs_answer([ASKED, SAID | {"weight": 0}])


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda one: one.name)
def test_an_answer_of_weight_0_that_the_template_marks_is_no_target_either(template: Template) -> None:
    tokenizer = byte_level(template.marked, template.tokens)
    turns, _ = read_turns([ASKED, SAID, AGAIN, MORE | {"weight": 0}, ASKED, SAID], "messages")
    for count in (4, 6):  # at the end, and between others
        found = encoded(tokenizer, chat(*turns[:count]))
        wanted = [f"the sky.{template.end}"] * (count // 2 - count // 4)
        assert [text.strip() for text in trained(tokenizer, found.rows[0])] == [text.strip() for text in wanted]
        assert not found.facts


@pytest.mark.parametrize("name", ["look", "blue"])  # the other one stands in what the user says
def test_calls_and_tools_that_the_template_leaves_out_are_told_and_never_trained_as_an_empty_answer(name: str) -> None:
    tokenizer = byte_level(TEMPLATES[0].plain, TEMPLATES[0].tokens)
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": name, "arguments": {}}}]}
    rows = [ASKED, call, {"role": "tool", "content": "blue"}, MORE]
    tools = [{"type": "function", "function": {"name": name}}]
    found = encoded(tokenizer, Example("", "", 1, make_chat(rows, DataOptions(), tools)))
    assert trained(tokenizer, found.rows[0]) == ["the sea<|im_end|>"]
    assert [fact.split(" (")[0] for fact in found.facts] == [
        "The chat template leaves out the calls of tools, which are then no targets",
        "The chat template leaves out the descriptions of tools",
    ]
    with pytest.raises(DataError, match="Row 1: the chat template leaves out all that would be trained"):
        encoded(tokenizer, chat(ASKED, call))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda one: one.name)
def test_generation_marks_give_the_same_targets_as_turns_and_as_transformers_own_mask(template: Template) -> None:
    plain, marked = byte_level(template.plain, template.tokens), byte_level(template.marked, template.tokens)
    by_turns, by_marks = encoded(plain, chat(*TALK)), encoded(marked, chat(*TALK))
    assert by_marks.rows[0].ids == by_turns.rows[0].ids
    assert [text.strip() for text in trained(marked, by_marks.rows[0])] == [
        text.strip() for text in trained(plain, by_turns.rows[0])
    ]
    found = marked.apply_chat_template(list(TALK), return_assistant_tokens_mask=True, return_dict=True)
    assert list(by_marks.rows[0].targets) == [at for at, mark in enumerate(found["assistant_masks"]) if mark]
    assert not by_marks.facts


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda one: one.name)
def test_spans_are_those_of_characters_mapped_otherwise(template: Template) -> None:
    """The reference: each token's bytes are added up, and laid over where the answers stand in the text."""
    tokenizer = byte_level(template.plain, template.tokens)
    row = encoded(tokenizer, chat(*TALK)).rows[0]
    text, at, places = tokenizer.decode(row.ids), 0, []
    for token in row.ids:
        size = len(tokenizer.decode([token]))
        places.append((at, at + size))
        at += size
    wanted, behind = [], 0
    for turn in (SAID, MORE):
        start = text.index(turn["content"], behind)
        behind = start + len(turn["content"]) + len(template.end)
        wanted += [place for place, (begin, end) in enumerate(places) if end > start and begin < behind]
    blanks = {place for place in set(row.targets) - set(wanted) if not tokenizer.decode([row.ids[place]]).strip()}
    assert set(row.targets) - blanks == set(wanted)


def test_the_last_turn_all_or_given_turns() -> None:
    tokenizer = byte_level(TEMPLATES[0].plain, TEMPLATES[0].tokens)
    last = encoded(tokenizer, chat(*TALK, train_on="last")).rows[0]
    assert trained(tokenizer, last) == ["the sea<|im_end|>"]
    assert last.turns == (last.n_prompt,)
    whole = encoded(tokenizer, chat(*TALK, train_on="all")).rows[0]
    assert whole.spans == ((1, len(whole.ids)),)
    given = encoded(tokenizer, chat(*TALK, given=2)).rows[0]
    assert trained(tokenizer, given) == ["the sea<|im_end|>"]


def test_an_analysis_looks_at_the_first_token_of_each_turn_and_never_at_its_end() -> None:
    tokenizer = byte_level(TEMPLATES[0].plain, TEMPLATES[0].tokens)
    row = encoded(tokenizer, chat(*TALK)).rows[0]
    assert [tokenizer.decode([row.ids[place + 1]]) for place in row.looked_at("first")] == ["the", "the"]
    said = [tokenizer.decode([row.ids[place + 1]]) for place in row.looked_at("all")]
    assert "".join(said) == "the sky.the sea"
    assert list(row.looked_at("every:3")) == list(row.looked_at("all"))[::3]
    assert row.n_completion == len(said) == row.n_targets - 2


@pytest.mark.parametrize("train_on", ["all", "assistant"])
def test_an_analysis_looks_at_no_end_inside_of_a_whole_chat_or_before_a_marked_line_end(train_on: str) -> None:
    marked = TEMPLATES[0].text.replace("GEN", "{% generation %}")
    marked = marked.replace("END{{ '\\n' }}", "{{ '\\n' }}{% endgeneration %}")
    tokenizer = byte_level(marked if train_on == "assistant" else TEMPLATES[0].plain, TEMPLATES[0].tokens)
    row = encoded(tokenizer, chat(*TALK, train_on=train_on)).rows[0]
    said = [tokenizer.decode([row.ids[place]]) for place in row.ends]
    assert said == ["<|im_end|>"] * 2
    assert not {place + 1 for place in row.looked_at("all")} & set(row.ends)
    assert row.n_completion == row.n_targets - 2 == len(row.looked_at("all"))
    assert set(row.ends) < set(row.targets)


def test_no_end_of_text_is_appended_behind_a_rendered_template() -> None:
    tokenizer = byte_level(TEMPLATES[0].plain, TEMPLATES[0].tokens)
    assert tokenizer.eos_token_id not in encoded(tokenizer, chat(ASKED, SAID)).rows[0].ids


def test_a_model_without_a_template_gets_a_plain_one_that_is_told() -> None:
    tokenizer = byte_level(None)
    found = encoded(tokenizer, chat(*TALK))
    assert tokenizer.decode(found.rows[0].ids) == (
        "User: what is blue?\nAssistant: the sky.</s>\nUser: and?\nAssistant: the sea</s>\n"
    )
    assert trained(tokenizer, found.rows[0]) == [" the sky.</s>", " the sea</s>"]
    assert found.rendering == "chat, by a plain template, since the model has none"
    assert PLAIN_TEMPLATE


def test_a_given_template_goes_before_the_tokenizers_own() -> None:
    tokenizer = byte_level(TEMPLATES[0].plain, TEMPLATES[0].tokens)
    found = encoded(tokenizer, chat(ASKED, SAID, chat_template=TEMPLATES[7].plain))
    assert tokenizer.decode(found.rows[0].ids) == "USER: what is blue? ASSISTANT: the sky.</s>"
    assert found.rendering == "chat, by the given template"


@pytest.mark.parametrize(("pairs", "own", "raw"), [("auto", True, False), ("auto", False, True), ("raw", True, True)])
def test_a_text_pair_is_a_chat_where_the_model_has_a_template_unless_it_is_to_be_raw(
    pairs: str, own: bool, raw: bool
) -> None:
    tokenizer = byte_level(TEMPLATES[0].plain if own else None, TEMPLATES[0].tokens)
    example = pair_example("what is blue?", " the sky", 1, Work(DataOptions(pairs=pairs), Tally()))
    found = encoded(tokenizer, example)
    text = tokenizer.decode(found.rows[0].ids)
    if raw:
        assert text == "what is blue? the sky</s>"
        assert found.rows[0] == replace(encoded(tokenizer, replace(example, content=None)).rows[0], example=example)
    else:
        turn = "<|im_start|>user\nwhat is blue?<|im_end|>\n<|im_start|>assistant\nthe sky<|im_end|>\n"
        assert text == turn
    assert found.rendering == ("raw" if raw else "chat, by the model's template")


def test_a_long_chat_is_cut_at_its_beginning_and_what_does_not_fit_is_left_out_and_counted() -> None:
    tokenizer = byte_level(TEMPLATES[0].plain, TEMPLATES[0].tokens)
    whole = encoded(tokenizer, chat(*TALK)).rows[0]
    behind = len(whole.ids) - whole.spans[0][0] - 2  # two tokens into the first answer
    found = encoded(tokenizer, chat(*TALK), length=behind)
    assert found.n_cut == 1
    assert trained(tokenizer, found.rows[0]) == ["the sea<|im_end|>"]  # a turn cut in two is no target
    short = encoded(
        tokenizer, chat(ASKED, MORE), chat(*TALK, {"role": "assistant", "content": "long " * 40}), length=60
    )
    assert (len(short.rows), short.n_dropped) == (1, 1)


def test_a_template_that_refuses_a_role_or_leaves_one_out_is_told_with_the_row() -> None:
    refusing = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system, please') }}{% endif %}"
        "{{ m['content'] }}</s>{% endfor %}"
    )
    system = {"role": "system", "content": "Be short."}
    with pytest.raises(DataError, match=r"Row 7: the chat template cannot be filled \(no system, please\)"):
        encoded(byte_level(refusing), chat(system, ASKED, SAID, row=7))
    leaving = TEMPLATES[0].plain.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
    found = encoded(
        byte_level(leaving, TEMPLATES[0].tokens), chat(system, ASKED, SAID, row=7), chat(system, ASKED, MORE)
    )
    assert found.facts == ("The chat template leaves out, or changes, what the system says (row 7 and 1 more).",)


def test_a_default_system_prompt_and_special_tokens_in_messages_are_told() -> None:
    head = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    tokenizer = byte_level(head + TEMPLATES[0].plain, TEMPLATES[0].tokens)
    sly = {"role": "user", "content": "<|im_end|> ha"}
    found = encoded(tokenizer, chat(ASKED, SAID), chat(sly, SAID, row=2))
    assert found.facts == (
        "The chat template adds the system prompt 'Be kind.' to chats without one (row 1 and 1 more).",
        "A special token is written in a message, and read as that token (row 2).",
    )


def test_a_template_that_writes_the_day_is_told_to_make_other_texts_on_another() -> None:
    dated = "Today: {{ strftime_now('%d %b %Y') }}\n"
    tokenizer = byte_level(dated + TEMPLATES[0].plain, TEMPLATES[0].tokens)
    (told,) = encoded(tokenizer, chat(ASKED, SAID), chat(ASKED, MORE, SAID)).facts
    assert told == (
        "The chat template writes the day on which it is filled: on another day, as in a run that is resumed, the "
        "texts differ (row 1 and 1 more)."
    )
    unused = "{% if messages | length > 9 %}{{ strftime_now('%d %b %Y') }}{% endif %}" + TEMPLATES[0].plain
    assert encoded(byte_level(unused, TEMPLATES[0].tokens), chat(ASKED, SAID)).facts == ()


def test_a_template_that_rewrites_earlier_turns_is_refused_unless_the_last_turn_alone_is_trained() -> None:
    rewriting = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['role'] == 'assistant' and not loop.last %}(cut){% else %}{{ m['content'] }}{% endif %}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = byte_level(rewriting, TEMPLATES[0].tokens)
    third = ({"role": "user", "content": "more"}, SAID)
    last = encoded(tokenizer, chat(*TALK, *third, train_on="last"))
    assert trained(tokenizer, last.rows[0]) == ["the sky.<|im_end|>"]
    with pytest.raises(DataError, match="Row 1: the chat template writes message 2, or what comes before"):
        encoded(tokenizer, chat(*TALK))


def test_a_template_that_marks_nothing_of_the_answers_is_refused_unless_all_is_trained() -> None:
    said = "{{ m['content'] }}<|im_end|>\n"  # the user's: behind an answer the line end is a tag
    assert said in TEMPLATES[0].plain
    around_users = TEMPLATES[0].plain.replace(said, "{% generation %}" + said + "{% endgeneration %}")
    tokenizer = byte_level(around_users, TEMPLATES[0].tokens)
    with pytest.raises(DataError, match="Row 1: the chat template marks nothing of what would be trained"):
        encoded(tokenizer, chat(ASKED, SAID))
    assert encoded(tokenizer, chat(ASKED, SAID, train_on="all")).rows[0].spans


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda one: one.name)
def test_a_thousandth_chat_is_read_as_the_first(template: Template) -> None:
    tokenizer = byte_level(template.plain, template.tokens)
    sly = {"role": "user", "content": f"no{template.end}the sky.{template.end}"}
    system, user = {"role": "system", "content": "the sky."}, {"role": "user", "content": "user"}
    talks = [
        TALK, TALK, (system, *TALK, ASKED, SAID), (user, SAID, user, SAID), (sly, SAID, sly, MORE), (ASKED, MORE),
        (ASKED, {"role": "assistant", "content": " padded\n"}, AGAIN, MORE), (ASKED, SAID, ASKED, SAID, ASKED, SAID),
    ]  # fmt: skip
    alone = [encoded(tokenizer, chat(*talk)).rows[0] for talk in talks]
    together = encoded(tokenizer, *(chat(*talk) for talk in talks)).rows
    assert [(row.ids, row.spans, row.turns, row.ends) for row in together] == [
        (row.ids, row.spans, row.turns, row.ends) for row in alone
    ]


def test_a_call_of_a_tool_is_a_target() -> None:
    with_tools = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
        "{% for call in m['tool_calls'] %}<call>{{ call['function'] | tojson }}</call>{% endfor %}<|im_end|>\n"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = byte_level(with_tools, TEMPLATES[0].tokens)
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "sky"}}}
    turns = ASKED, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "blue"}, SAID
    row = encoded(tokenizer, chat(*turns)).rows[0]
    assert trained(tokenizer, row) == [
        '<call>{"name": "look", "arguments": {"at": "sky"}}</call><|im_end|>', "the sky.<|im_end|>",
    ]  # fmt: skip


def test_a_chat_is_small_and_equal_by_what_it_says() -> None:
    one, other = chat(*TALK), chat(*TALK)
    assert one == other
    assert isinstance(one.content, Chat)
    assert json.loads(one.content.text)["messages"] == list(TALK)
