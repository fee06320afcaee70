"""What a run was asked to do: complete, frozen, saved as spec.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lsf.analysis.plan import Plan, parse_plan
from lsf.axes import DEVICES, DTYPES
from lsf.errors import BadInputError, RunError
from lsf.files import read_json, write_json

SCHEMA_VERSION = 1


def _setting(default: Any, meaning: str, **limits: Any) -> Any:
    return field(default=default, metadata={"meaning": meaning, **limits})


@dataclass(frozen=True)
class RunSpec:
    """One fine-tune, completely; forms, `--help` and spec.json are made of these fields and their metadata."""

    model: str
    """`bundled`, a local folder, or a Hugging Face id."""
    data: str
    """`lesson:NAME`, a local file, or `hub:NAME[:CONFIG][:SPLIT]`."""
    plan: Plan
    """Which blocks and modules are tuned."""
    role: str = _setting("choice", "what it stands for in a comparison: choice, full, first, last, random, manual")
    prompt_template: str | None = _setting(None, "prompt from any columns, for example 'Question: {question}'")
    completion_template: str | None = _setting(None, "completion from any columns, for example ' {answer}'")
    method: str = _setting("full", "how the planned blocks are tuned")
    steps: int = _setting(100, "optimizer steps", low=1, high=1_000_000)
    epochs: float | None = _setting(None, "passes over the training split; replaces steps", low=0.001, high=10_000)
    learning_rate: float | None = _setting(
        1e-3, "AdamW's peak rate; auto = a short search on validation", low=1e-8, high=1.0
    )
    weight_decay: float = _setting(0.0, "AdamW's decoupled weight decay", low=0.0, high=1.0)
    warmup_steps: int = _setting(0, "steps of linear warm-up, then linear decay to zero", low=0, high=1_000_000)
    batch_size: int = _setting(16, "examples per optimizer step", low=1, high=65_536)
    max_length: int | None = _setting(
        None, "tokens per example; default: the context, at most 1024", low=2, high=1_000_000
    )
    eval_every: int | None = _setting(
        None, "steps between validation readings; default: ten readings a run", low=1, high=1_000_000
    )
    eval_limit: int = _setting(256, "examples read at most in each evaluation", low=1, high=1_000_000)
    seed: int = _setting(0, "of data order and every other random choice", low=0, high=2**31 - 1)
    dtype: str = _setting("auto", "of the frozen weights", choices=DTYPES)
    device: str = _setting("auto", "where it runs", choices=DEVICES)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        """Refuse a value out of its range, naming the field and the range."""
        if self.schema_version != SCHEMA_VERSION:
            raise BadInputError(f"The run's spec has schema_version {self.schema_version}; 1 was expected.")
        for item in fields(self):
            check_setting(item.name, getattr(self, item.name), item.metadata)

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON values, schema_version first."""
        plain = {**asdict(self), "plan": self.plan.to_json()}
        return {"schema_version": plain.pop("schema_version"), **plain}

    def save(self, path: Path) -> None:
        """Write spec.json, whole or not at all."""
        write_json(path, self.to_json())


def check_setting(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Check one value against its field's metadata (`low`, `high`, `choices`); None is always allowed to mean unset.

    Raises:
        BadInputError: one sentence with the field, the value and what would be accepted.
    """
    if value is None:
        return
    choices = limits.get("choices")
    if choices and value not in choices:
        raise BadInputError(f"{name} is {value!r}; accepted are: {', '.join(choices)}.")
    if "low" in limits and not limits["low"] <= value <= limits["high"]:
        raise BadInputError(f"{name} is {value}; it must lie between {limits['low']:g} and {limits['high']:g}.")


def load_spec(path: Path) -> RunSpec:
    """Read spec.json.

    Raises:
        BadInputError: not JSON, or a value out of range.
        RunError: a field is missing or unknown.
    """
    value = read_json(path, "a run's spec")
    try:
        return RunSpec(**{**value, "plan": parse_plan(value["plan"], str(path))})
    except (KeyError, TypeError) as error:
        raise RunError(f"{path} is not a whole run spec: {error}.") from None
