"""From an example to token ids: prompt and completion as one text, the way the model would read it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lsf.data.contents import Chat, Document, Segments, Tokens
from lsf.data.rendering import Fact, Rendered, Renderer, Span, joined_facts, special_tokens, template_of
from lsf.data.spans import TEXTS_AT_ONCE, Same, Text, tokenised
from lsf.data.task import Example
from lsf.errors import DataError

DEFAULT_MAX_LENGTH = 1024
"""Tokens per example unless the user asks for more; never more than the model's context."""

EVERY = 16
"""Of plain text each so many tokens are looked at, where not all or another number are asked for."""


@dataclass(frozen=True)
class EncodedExample:
    """One example as token ids."""

    ids: tuple[int, ...]
    """Prompt, completion, and end-of-text where it was asked for; of a chat all that was rendered."""
    n_prompt: int
    """Ids before the first target; the first target is predicted at position n_prompt - 1."""
    n_completion: int
    """Targets; an end-of-text, or the end of a turn, not counted."""
    example: Example
    """Where it came from."""
    straddles: bool = False
    """True where the first target has characters of the prompt too."""
    spans: tuple[tuple[int, int], ...] = ()
    """Places [start, end) of the targets, ascending; empty where all behind the prompt are."""
    turns: tuple[int, ...] = ()
    """Places at which an answer begins; empty for plain text, and where it is n_prompt alone."""
    ends: tuple[int, ...] = ()
    """Places of targets that end a turn; they are trained, and not looked at by an analysis."""
    n_bytes: int = 0
    """Bytes of the text that the targets write, in UTF-8, for plain text; else 0."""
    appended: bool = False
    """Whether end-of-text was appended behind its completion; False for plain text, and where it was there already."""

    @property
    def targets(self) -> Sequence[int]:
        """Places of the tokens that are trained, ascending."""
        if not self.spans:
            return range(self.n_prompt, len(self.ids))
        return [place for start, end in self.spans for place in range(start, end)]

    @property
    def n_targets(self) -> int:
        """How many tokens are trained."""
        return sum(end - start for start, end in self.spans) if self.spans else len(self.ids) - self.n_prompt

    @property
    def is_text(self) -> bool:
        """Whether it is plain text, in which no answer begins anywhere."""
        return bool(self.spans) and not self.turns

    @property
    def asked(self) -> int:
        """Ids the model is given when it is to write the answer: up to the last turn, half of a plain text."""
        return max(1, len(self.ids) // 2) if self.is_text else self.turns[-1] if self.turns else self.n_prompt

    @property
    def n_answer(self) -> int:
        """Targets from there on, an end not counted."""
        if not self.spans:
            return self.n_completion
        return sum(place >= self.asked and place not in self.ends for place in self.targets)

    def looked_at(self, positions: str) -> Sequence[int]:
        """Return the places whose next token an analysis looks at.

        Args:
            positions: `first` target of each answer (of plain text each 16th), `all` targets but ends, or `every:K`-th
                target.
        """
        if not self.spans and positions in ("first", "all"):
            last = self.n_prompt + (self.n_completion if positions == "all" else 1)
            return range(self.n_prompt - 1, last - 1)
        if positions == "first" and self.turns:
            return [place - 1 for place in self.turns]
        places = [place - 1 for place in self.targets if place not in self.ends]
        if not self.spans:
            places = places[: self.n_completion]
        step = 1 if positions == "all" else EVERY if positions == "first" else int(positions.partition(":")[2])
        return places[::step] or places[:1]


AS_TEXT = "plain text"
"""How rows without an answer are told to be rendered."""


@dataclass(frozen=True)
class Encoding:
    """Encoded examples, and how many did not fit."""

    rows: tuple[EncodedExample, ...]
    """Those that fit, in order; of a document one per window."""
    n_dropped: int
    """Examples whose completion does not fit."""
    n_cut: int = 0
    """Rows that lost tokens at their beginning."""
    rendering: str = "raw"
    """How the texts were made: raw, by a chat template, plain text, token ids; several with their rows."""
    told: tuple[Fact, ...] = ()
    """What the chat template did to rows."""

    @property
    def facts(self) -> tuple[str, ...]:
        """The same as sentences."""
        return tuple(map(str, self.told))

    @property
    def n_straddling(self) -> int:
        """Rows in which a token straddles the border of prompt and completion."""
        return sum(row.straddles for row in self.rows)


def context_length(context: int, max_length: int | None) -> int:
    """Return the tokens an example may have: the user's limit or the default, never more than the context."""
    return min(context, max_length or DEFAULT_MAX_LENGTH)


def encode(tokenizer: Any, examples: Sequence[Example], max_length: int, append_eos: bool = False) -> Encoding:
    """Tokenise examples as METHOD fixes it: prompt + completion once, as one text.

    A target is a token whose characters reach into the completion. One that straddles the border is a target too, and
    such rows are counted. Too long: the prompt is cut from the left, down to one token; an example whose completion
    does not fit beside it is dropped and counted.

    A chat is rendered by its template and tokenised once, as one text; the same rules hold for its targets, and no
    end-of-text is appended. A document is cut into windows; each begins with the last token of the one before.

    Args:
        tokenizer: a transformers tokenizer.
        examples: at least one.
        max_length: tokens per example, end-of-text included.
        append_eos: append end-of-text where the completion does not end in it, for training; it is never probed.

    Raises:
        DataError: an empty completion, or one without tokens (names the row); a prompt without tokens; or nothing fits.
    """
    parts = list(encode_parts(tokenizer, examples, max_length, append_eos))
    return replace(parts[-1], rows=tuple(row for part in parts for row in part.rows))


def encode_parts(
    tokenizer: Any, examples: Sequence[Example], max_length: int, append_eos: bool = False
) -> Iterator[Encoding]:
    """Yield what `encode` returns in parts that need not be kept, each with its rows and all that is told so far.

    Args and errors are those of `encode`.
    """
    work, some = _Work(tokenizer, max_length, append_eos), False
    for start in range(0, len(examples), TEXTS_AT_ONCE):
        work.take(examples[start : start + TEXTS_AT_ONCE])
        some = some or bool(work.rows)
        yield Encoding(tuple(work.rows), work.n_dropped, work.n_cut, work.rendering, work.told)
        work.rows.clear()
    if not some:
        raise DataError(f"No completion fits into {max_length} tokens; take shorter completions or a longer context.")


class _Work:
    """What one call of `encode` has made so far."""

    def __init__(self, tokenizer: Any, max_length: int, append_eos: bool) -> None:
        self.tokenizer, self.max_length, self.append_eos = tokenizer, max_length, append_eos
        self.end = tokenizer.eos_token_id
        self.rows: list[EncodedExample] = []
        self.n_dropped = self.n_cut = 0
        self._kinds: Counter[str] = Counter()
        self._renderers: dict[str | None, Renderer] = {}
        self._special = set(special_tokens(tokenizer))
        self._blank: dict[int, bool] = {}
        self._one = Same()
        added, plain = (next(tokenised(tokenizer, ["a"], special)).ids for special in (True, False))
        self._start = added[: len(added) - len(plain)]

    def take(self, examples: Sequence[Example]) -> None:
        """Encode some examples, in order."""
        own = template_of(self.tokenizer)
        as_they_are: dict[int, str] = {}  # texts to which the tokenizer adds its start token, by their place
        rendered: dict[int, Rendered] = {}
        chats: dict[str | None, dict[int, Chat]] = {}
        for index, example in enumerate(examples):
            content = example.content
            if content is None or (isinstance(content, Chat) and content.pair and own is None):
                as_they_are[index] = example.prompt + example.completion
            elif isinstance(content, Chat):
                if content.template not in self._renderers:
                    self._renderers[content.template] = Renderer(self.tokenizer, content.template)
                self._kinds[CHAT_WORDS[self._renderers[content.template].source]] += 1
                chats.setdefault(content.template, {})[index] = content
            elif isinstance(content, Segments):
                as_they_are[index] = "".join(part for _, part in content.parts)
            elif isinstance(content, Document):
                as_they_are[index] = content.text
        for template, some in chats.items():
            renderer = self._renderers[template]
            found = renderer.render_all(list(some.values()), [examples[index].where for index in some])
            rendered |= zip(some, found, strict=True)
            if renderer.source == "plain":
                as_they_are |= {index: rendered[index].text for index in some}
        templated = {index: found.text for index, found in rendered.items() if index not in as_they_are}
        texts = dict(zip(as_they_are, self._tokenised(as_they_are.values()), strict=True))
        texts |= zip(templated, self._tokenised(templated.values(), False), strict=True)
        for index, example in enumerate(examples):
            content = example.content
            if index in rendered:
                self._chat(example, rendered[index], texts[index])
            elif isinstance(content, Segments):
                self._segments(example, content, texts[index])
            elif isinstance(content, Tokens):
                self._tokens(example, content)
            elif isinstance(content, Document):
                self._document(example, content, texts[index])
            else:
                self._pair(example, texts[index])

    def _tokenised(self, texts: Iterable[str], special: bool = True) -> Iterator[Text]:
        return tokenised(self.tokenizer, list(texts), special, self._one)

    @property
    def rendering(self) -> str:
        """How the texts were made."""
        if len(self._kinds) == 1:
            return next(iter(self._kinds))
        return ", ".join(f"{kind} ({count:,})" for kind, count in self._kinds.most_common())

    @property
    def told(self) -> tuple[Fact, ...]:
        """What the templates did."""
        return joined_facts(fact for renderer in self._renderers.values() for fact in renderer.facts.values())

    def _pair(self, example: Example, text: Text) -> None:
        self._kinds["raw"] += 1
        n_prompt, straddles = _border(self.tokenizer, example, text)
        for part, n_tokens in (("completion", len(text.ids) - n_prompt), ("prompt", n_prompt)):
            if not n_tokens:
                raise DataError(f"{_where(example)}: the {part} {getattr(example, part)!r} has no tokens.")
        ends = text.ids[-1] == self.end
        n_completion = max(1, len(text.ids) - n_prompt - ends)
        added = () if not self.append_eos or self.end is None or ends else (self.end,)
        room = self.max_length - (len(text.ids) - n_prompt) - len(added)
        if room < 1:
            self.n_dropped += 1
            return
        self.n_cut += n_prompt > room
        kept = tuple(self._behind(text.ids, max(0, n_prompt - room), room))
        row = EncodedExample(kept + added, min(n_prompt, room), n_completion, example, straddles)
        self.rows.append(replace(row, appended=bool(added)))

    def _chat(self, example: Example, rendered: Rendered, text: Text) -> None:
        spans = self._placed(text, rendered.text, rendered.spans, example)
        same = rendered.turns == rendered.spans
        turns = spans if same else self._placed(text, rendered.text, rendered.turns, example)
        self._add(example, text.ids, spans, turns, rendered.spans == ((0, len(rendered.text)),))

    def _segments(self, example: Example, content: Segments, text: Text) -> None:
        self._kinds["segments"] += 1
        whole, spans = "", list[Span]()
        for wanted, part in content.parts:
            if wanted and part:
                joined = spans and spans[-1][1] == len(whole)
                spans[-1:] = [(spans[-1][0] if joined else len(whole), len(whole) + len(part))] if joined else [
                    *spans[-1:], (len(whole), len(whole) + len(part))
                ]  # fmt: skip
            whole += part
        places = self._placed(text, whole, spans, example)
        borders = (_border(self.tokenizer, Example(whole[:start], whole[start:]), text) for start, _ in spans)
        straddles = any(straddles for _, straddles in borders)
        at_end = self.append_eos and places[-1][1] == len(text.ids)
        added = () if not at_end or self.end is None or text.ids[-1] == self.end else (self.end,)
        text.ids.extend(added)
        places[-1] = places[-1][0], places[-1][1] + len(added)
        self._add(example, text.ids, places, places, straddles=straddles, appended=bool(added))

    def _tokens(self, example: Example, content: Tokens) -> None:
        self._kinds["token ids"] += 1
        size = len(self.tokenizer)
        if odd := next((one for one in content.ids if not 0 <= one < size), None):
            raise DataError(f"{_where(example)}: the token id {odd} is not one of the model's (0 to {size - 1}).")
        spans: list[Span] = []
        for place, label in enumerate(content.labels):
            if label == IGNORED or not place:
                continue
            joined = spans and spans[-1][1] == place
            spans[-1:] = [(spans[-1][0], place + 1)] if joined else [*spans[-1:], (place, place + 1)]
        self._add(example, list(content.ids), spans, spans)

    def _placed(self, text: Text, whole: str, spans: Sequence[Span], example: Example) -> list[Span]:
        """Return the tokens whose characters reach into each span; the first token of all is never one.

        A token that reaches into two spans belongs to the first of them; a span that has no other is left out.
        """
        found, place, count = list[Span](), 0, len(text.ids)
        for start, end in spans:
            if text.spans is None:
                first, last = (_shared(self.tokenizer, whole[:at], text.ids) for at in (start, end))
            else:
                while place < count and text.spans[place][1] <= start:
                    place += 1
                first = place
                while place < count and text.spans[place][0] < end:
                    place += 1
                last = place
                place = max(first, last - 1)  # the next span may begin in the same token
            first = max(1, first)
            if first >= last:
                raise DataError(f"{_where(example)}: the target {whole[start:end]!r} has no tokens.")
            first = max(first, found[-1][1]) if found else first
            found += [(first, last)] if first < last else []
        return found

    def _add(
        self, example: Example, ids: list[int], spans: list[Span], turns: list[Span], whole: bool = False,
        straddles: bool = False, appended: bool = False,
    ) -> None:  # fmt: skip
        """Add a row, cut at its beginning where it is too long; a turn that is cut in two is no target any more."""
        stop = spans[-1][1]
        cut = max(0, stop - self.max_length)
        kept = [(1, stop - cut)] if whole else [(start - cut, end - cut) for start, end in spans if start > cut]
        if not kept:
            self.n_dropped += 1
            return
        self.n_cut += cut > 0
        ids = self._behind(ids[: cut + self.max_length], cut, self.max_length if whole else kept[0][0])
        shown = [(start - cut, end - cut) for start, end in turns if start > cut]
        ends = tuple(sorted({end for span in {*kept, *shown} if (end := self._end_in(ids, *span)) is not None}))
        n_completion = sum(end - start for start, end in kept) - len(ends)
        begun = tuple(start for start, _ in shown) or (kept[0][0],)
        row = EncodedExample(tuple(ids), kept[0][0], n_completion, example, straddles, tuple(kept), begun, ends)
        self.rows.append(replace(row, appended=appended))

    def _end_in(self, ids: list[int], start: int, end: int) -> int | None:
        """Return the place of the special token, not the first, that ends a stretch, blanks behind it; else None."""
        for place in range(end - 1, start, -1):
            if ids[place] in self._special:
                return place
            if ids[place] not in self._blank:
                self._blank[ids[place]] = not self.tokenizer.decode([ids[place]]).strip()
            if not self._blank[ids[place]]:
                return None
        return None

    def _behind(self, ids: list[int], cut: int, n_prompt: int) -> list[int]:
        """Return ids cut at their beginning; start tokens stay, in the place of others, where the prompt is longer."""
        n = len(self._start)
        if cut and n < n_prompt and ids[:n] == self._start:
            return self._start + ids[cut + n :]
        return ids[cut:]

    def _document(self, example: Example, content: Document, text: Text) -> None:
        self._kinds[AS_TEXT] += 1
        ids = text.ids
        bytes_at = _bytes_before(content.text, text.spans, len(ids))
        if self.append_eos and not content.goes_on and self.end is not None and ids[-1:] != [self.end]:
            ids, bytes_at = [*ids, self.end], [*bytes_at, bytes_at[-1]]
        if len(ids) < 2:
            self.n_dropped += 1
            return
        for start in range(0, len(ids) - 1, self.max_length - 1):
            window = tuple(ids[start : start + self.max_length])
            last = len(window) - 1
            ends = (last,) if window[-1] == self.end and last > 1 else ()
            n_bytes = bytes_at[start + len(window)] - bytes_at[start + 1]
            self.rows.append(
                EncodedExample(window, 1, last - len(ends), example, False, ((1, len(window)),), (), ends, n_bytes)
            )


CHAT_WORDS = {
    "own": "chat, by the model's template",
    "given": "chat, by the given template",
    "plain": "chat, by a plain template, since the model has none",
}
"""Where a template is from -> how that is told."""
IGNORED = -100
"""Label of a token that is not predicted."""


def _shared(tokenizer: Any, beginning: str, ids: Sequence[int]) -> int:
    """Return how many ids a text's beginning shares with all of it, for tokenizers that know no characters."""
    own = next(tokenised(tokenizer, [beginning], False)).ids if beginning else []
    return next((i for i, (one, other) in enumerate(zip(own, ids, strict=False)) if one != other), len(own))


def _bytes_before(text: str, spans: list[Span] | None, n_ids: int) -> list[int]:
    """Return, for each token and the end, the bytes of the text before it; spread evenly where no characters are known.

    Returns:
        n_ids + 1 numbers, ascending.
    """
    size = len(text.encode())
    if spans is None:
        return [size * place // max(1, n_ids) for place in range(n_ids + 1)]
    found, at, counted = [0], 0, 0
    for _, end in spans:
        counted += len(text[at:end].encode()) if end > at else 0
        at = max(at, end)
        found.append(counted)
    found[-1] = size
    return found


def straddling_words(n_straddling: int, of: str = "") -> str:
    """Return the sentence that tells of rows in which a token straddles the border; empty where there is none.

    Args:
        n_straddling: such rows.
        of: what is added to their number, such as ` of 200`.
    """
    if not n_straddling:
        return ""
    rows, have = ("row", "has") if n_straddling == 1 and not of else ("rows", "have")
    return (
        f"{n_straddling:,}{of} {rows} {have} a token that is part prompt, part completion; it counts as a target. "
        "Where the prompt ends in a blank, move it to the completion's beginning."
    )


def _border(tokenizer: Any, example: Example, text: Text) -> tuple[int, bool]:
    """Return how many tokens come before the first target, and whether that one has characters of the prompt."""
    border = len(example.prompt)
    if text.spans is None:
        prompt = next(tokenised(tokenizer, [example.prompt])).ids
        pairs = zip(prompt, text.ids, strict=False)
        common = next(
            (place for place, (own, here) in enumerate(pairs) if own != here), min(len(prompt), len(text.ids))
        )
        return common, common < len(prompt)
    n_prompt = next((place for place, (_, end) in enumerate(text.spans) if end > border), len(text.ids))
    if n_prompt == len(text.ids):
        return n_prompt, False
    if text.spans[n_prompt][0] < border:
        return n_prompt, True
    # Byte-level tokenizers may leave a blank out of its token: that of " Paris" behind "is " then looks innocent.
    if not example.prompt[-1:].isspace() or (n_prompt and text.spans[n_prompt - 1][1] == border):
        return n_prompt, False
    return n_prompt, next(tokenised(tokenizer, [example.prompt])).ids != text.ids[:n_prompt]


def _where(example: Example) -> str:
    return (example.where or "an example").capitalize()
