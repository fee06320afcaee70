"""Chat templates of well-known families, written from their documented markers, and a tokenizer that has them."""

from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Template:
    """One family's template."""

    name: str
    """Family."""
    text: str
    """Jinja, with the answer between GEN and END, which become generation marks or nothing."""
    end: str
    """What ends an assistant's turn."""
    tokens: tuple[str, ...]
    """Special tokens."""

    @property
    def plain(self) -> str:
        """The template as families publish it."""
        return self.text.replace("GEN", "").replace("END", "")

    @property
    def marked(self) -> str:
        """The same with generation marks."""
        return self.text.replace("GEN", "{% generation %}").replace("END", "{% endgeneration %}")


def _by_role(prefix: str, user_end: str, answer: str, ask: str, start: str = "") -> str:
    return (
        f"{start}{{% for m in messages %}}{{% if m['role'] == 'assistant' %}}{answer}"
        f"{{% else %}}{prefix}{{{{ m['content'] }}}}{user_end}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{ask}{{% endif %}}"
    )


C = "{{ m['content'] }}"
N = "{{ '\\n' }}"  # a line end behind a tag would be taken away
R = "{{ m['role'] }}"
TEMPLATES = (
    Template("chatml", _by_role(f"<|im_start|>{R}\n", "<|im_end|>\n", f"<|im_start|>assistant\nGEN{C}<|im_end|>END{N}",
             "<|im_start|>assistant\n"), "<|im_end|>", ("<|im_start|>", "<|im_end|>")),
    Template("llama3", _by_role(f"<|head|>{R}<|tail|>\n\n", "<|eot_id|>",
             f"<|head|>assistant<|tail|>\n\nGEN{C}<|eot_id|>END", "<|head|>assistant<|tail|>\n\n", "{{ bos_token }}"),
             "<|eot_id|>", ("<|head|>", "<|tail|>", "<|eot_id|>")),
    Template("llama2", _by_role("{{ bos_token }}[INST] ", " [/INST]", f"GEN {C} {{{{ eos_token }}}}END", ""), " </s>",
             ()),
    Template("mistral", _by_role("[INST]", "[/INST]", f"GEN{C}{{{{ eos_token }}}}END", "", "{{ bos_token }}"), "</s>",
             ("[INST]", "[/INST]")),
    Template("gemma", _by_role(f"<start_of_turn>{R}\n", "<end_of_turn>\n",
             f"<start_of_turn>model\nGEN{C}<end_of_turn>END{N}", "<start_of_turn>model\n", "{{ bos_token }}"),
             "<end_of_turn>", ("<start_of_turn>", "<end_of_turn>")),
    Template("phi3", _by_role(f"<|{R}|>\n", "<|end|>\n", f"<|assistant|>\nGEN{C}<|end|>END{N}", "<|assistant|>\n")
             .replace("{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
                      "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"),
             "<|end|>", ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>")),
    Template("zephyr", _by_role(f"<|{R}|>\n", "{{ eos_token }}\n", f"<|assistant|>\nGEN{C}{{{{ eos_token }}}}END{N}",
             "<|assistant|>\n"), "</s>", ()),
    Template("vicuna", _by_role("USER: ", " ", f"ASSISTANT:GEN {C}{{{{ eos_token }}}}END", "ASSISTANT:"), "</s>", ()),
    Template("granite", _by_role(f"<|start_of_role|>{R}<|end_of_role|>", "<|end_of_text|>\n",
             f"<|start_of_role|>assistant<|end_of_role|>GEN{C}<|end_of_text|>END{N}",
             "<|start_of_role|>assistant<|end_of_role|>"), "<|end_of_text|>",
             ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>")),
    Template("command", _by_role("<|START|><|USER|>", "<|STOP|>", f"<|START|><|CHATBOT|>GEN{C}<|STOP|>END",
             "<|START|><|CHATBOT|>", "{{ bos_token }}"), "<|STOP|>",
             ("<|START|>", "<|USER|>", "<|CHATBOT|>", "<|STOP|>")),
    Template("trimming", _by_role(f"<|im_start|>{R}\n", "<|im_end|>\n",
             "<|im_start|>assistant\nGEN{{ m['content'] | trim }}<|im_end|>END{{ '\\n' }}", "<|im_start|>assistant\n"),
             "<|im_end|>", ("<|im_start|>", "<|im_end|>")),
)  # fmt: skip
"""Eleven of them; the answer is the content between GEN and END."""


def byte_level(template: str | None, special: tuple[str, ...] = ()) -> Any:
    """Return a byte-level tokenizer with some merges, special tokens and a template."""
    merges = [("t", "h"), ("th", "e"), ("Ġ", "s"), ("Ġs", "k"), ("Ġsk", "y"), (".", "Ċ")]
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in ("<s>", "</s>", *special)])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    made.chat_template = template
    return made
