"""How tokens are written in tables and pictures."""

from typing import Any


class TokenText:
    """The text of a token: its piece, with the markers of a leading space turned into one."""

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a transformers tokenizer; texts are looked up once."""
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, token: int) -> str:
        """Return the text of a token id; ids beyond the tokenizer (padded vocabularies) are written as <id>."""
        if token not in self._known:
            piece = self._tokenizer.convert_ids_to_tokens(token)
            text = f"<{token}>" if piece is None else str(piece)
            self._known[token] = text.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\\n")
        return self._known[token]
