"""What a run was asked to do: complete, frozen, saved as spec.json; and when its loss counts as flat."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from lsf.data.contents import LAST_NUMBER, MARKED, DataOptions, check_pattern
from lsf.errors import BadInputError
from lsf.methods.catalogue import CATALOGUE, check_base, describe, options_of
from lsf.methods.optimization import OPTIMIZERS
from lsf.plans.plan import Plan
from lsf.schema import JsonRecord
from lsf.settings import DEVICES, DTYPES, check_settings, same_setting, setting

REPORTERS = ("tensorboard", "mlflow", "wandb")
"""Packages that transformers can send the metrics to; none comes with lsf."""
ROLES = ("choice", "manual", "full", "first", "middle", "last", "random")
"""What a run can stand for in a comparison, in the order in which such runs are listed."""
METHODS_OWN: Final = "default"
"""In the place of a rate: the method's own on the model and plan of the run (lsf.methods.optimization). What was
asked stays in the spec, so that a default can be told from a number given; the number used stands in the result."""
ENDINGS = ("steps", "flat")
"""A run ends after its steps, or once its validation loss is flat (lsf.runs.spec), after its steps at the
latest."""
KEPT = ("last", "best")
"""Which step's values a run keeps: the last one's, or those of its best validation reading."""


NEEDS = {"general_share": "general", "generate_limit": "answer_pattern", "generate_tokens": "answer_pattern"}
"""Field that means nothing alone -> the field it belongs to."""


@dataclass(frozen=True)
class RunSpec(JsonRecord):
    """One fine-tune, completely; forms, `--help` and spec.json are made of these fields and their metadata."""

    noun: ClassVar = "run's spec"
    model: str
    """`bundled`, `smollm2`, a local folder, a GGUF file, or a Hugging Face id."""
    data: str
    """`lesson:NAME`, a local file, or `hub:NAME[:CONFIG][:SPLIT]`."""
    plan: Plan
    """Which blocks and modules are tuned."""
    role: str = setting("choice", "what it stands for in a comparison", choices=ROLES)
    prompt_template: str | None = setting(None, "prompt from any columns, for example 'Question: {question}'")
    completion_template: str | None = setting(None, "completion from any columns, for example ' {answer}'")
    format: str = same_setting(DataOptions, "format")
    pairs: str = same_setting(DataOptions, "pairs")
    train_on: str = same_setting(DataOptions, "train_on")
    chat_template: str | None = same_setting(DataOptions, "chat_template")
    max_rows: int | None = same_setting(DataOptions, "max_rows")
    general: str | None = setting(None, "general data mixed into training against forgetting; named as data is")
    general_share: float = setting(
        0.2, "share of the rows of each step that are general data, where there is any", low=0.01, high=0.9
    )
    method: str = setting("full", "how the planned blocks are tuned", choices=tuple(CATALOGUE))
    options: Mapping[str, Any] = field(default_factory=dict)
    """The method's options, only those that were given."""
    steps: int = setting(100, "optimizer steps", low=1, high=1_000_000)
    epochs: float | None = setting(
        None, "passes over the training split, general data not counted; replaces steps", low=0.001, high=10_000
    )
    until: str = setting(
        "steps",
        "steps: all of them; flat: until three validations in a row improve by less than 0.01 nats, or all steps",
        choices=ENDINGS,
    )
    keep: str = setting("last", "the parameters kept: of the last step or of the best validation", choices=KEPT)
    learning_rate: float | Literal["default"] | None = setting(
        METHODS_OWN,
        "peak learning rate; default = by method, width and blocks tuned; auto = short runs around that, judged on "
        "validation and forgetting, at most a fifth of the run's cost; a plan that trying made brings its own",
        low=1e-8,
        high=1.0,
    )
    optimizer: str = setting(
        "adamw", "optimizer: float32 AdamW, 8-bit AdamW (bitsandbytes), or Adafactor", choices=tuple(OPTIMIZERS)
    )
    weight_decay: float = setting(0.0, "decoupled weight decay", low=0.0, high=1.0)
    warmup_steps: int = setting(
        0, "steps of linear warm-up, fewer than the run has; then linear decay to zero", low=0, high=1_000_000
    )
    reweight_tau: float | None = setting(
        None,
        "weigh examples by softmax(distance from target / this), measured at every pass; default: equal weights",
        low=0.001,
        high=1000.0,
    )
    batch_size: int = setting(16, "examples per optimizer step", low=1, high=65_536)
    micro_batch: int | None = setting(
        None, "examples per forward pass, a divisor of the batch; default: all at once", low=1, high=65_536
    )
    cache: str = setting(
        "auto", "where the frozen prefix's output is kept for further epochs", choices=("auto", "memory", "disk", "off")
    )
    activation_checkpointing: str = setting(
        "off", "recompute activations instead of keeping them", choices=("off", "non_reentrant")
    )
    checkpoint_steps: int | None = setting(
        None, "steps between two checkpoints, besides those by time", low=1, high=1_000_000
    )
    checkpoint_seconds: float = setting(
        60.0, "minimum seconds between two checkpoints; they take at most 5 % of the time", low=0.0, high=1e9
    )
    report_to: str = setting("none", "tracker that also receives the metrics", choices=("none", *REPORTERS))
    max_length: int | None = setting(
        None, "tokens per example; default: the context, at most 1024", low=2, high=1_000_000
    )
    eval_every: int | None = setting(None, "steps between validations; default: ten per run", low=1, high=1_000_000)
    eval_limit: int = setting(256, "examples per evaluation, at most", low=1, high=1_000_000)
    answer_pattern: str | None = setting(
        None,
        "how to find the answer in a text generated for a test example, to measure the share of right answers: a "
        f"regular expression with one group, such as '{MARKED}', or {LAST_NUMBER}",
    )
    generate_limit: int = setting(64, "test examples answered by generation, at most", low=1, high=1_000_000)
    generate_tokens: int = setting(256, "new tokens per generated answer, at most", low=1, high=100_000)
    proof: str = setting(
        "identity",
        "how to prove that frozen weights did not move: by identity of storages, or by a hash of every byte",
        choices=("identity", "hash"),
    )
    latency: str = setting("off", "time a forward pass of the saved model against the base's", choices=("off", "on"))
    threads: int | None = setting(None, "CPU threads to compute with; default: the machine's setting", low=1, high=1024)
    seed: int = setting(0, "seed of the data order and of every other random choice", low=0, high=2**31 - 1)
    dtype: str = setting("auto", "format of the frozen weights; nf4, int8: 4 or 8 bits (bitsandbytes)", choices=DTYPES)
    device: str = setting("auto", "device to run on", choices=DEVICES)
    schema_version: Literal[1] = 1

    def __post_init__(self) -> None:
        """Refuse a value out of its range, naming the field and the range."""
        _ = CATALOGUE[self.method]  # an unknown one is answered with the known
        check_settings(self)
        check_pattern(self.answer_pattern)
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise BadInputError(f"micro_batch is {self.micro_batch}; it must divide the batch of {self.batch_size}.")
        if self.general is not None and self.reweight_tau is not None:
            raise BadInputError("General data (general) and re-weighting (reweight_tau) do not go together; take one.")
        options_of(self.method, self.options)
        check_base(self.method, self.dtype)

    @property
    def given_rate(self) -> float | None:
        """The number that was asked for; None where it is the plan's or the default's, or is searched."""
        return None if self.learning_rate == METHODS_OWN else self.learning_rate

    @property
    def tried_rate(self) -> float | None:
        """The rate that the plan brings for the method, where no number was asked for; None without one."""
        return self.plan.rates.get(self.method) if self.given_rate is None else None

    @property
    def known_rate(self) -> float | None:
        """The rate, where it is known before the run: the number asked for, or the plan's; else None."""
        return self.tried_rate if self.given_rate is None else self.given_rate

    @property
    def searches_rate(self) -> bool:
        """Whether short runs look for the rate first."""
        return self.learning_rate is None and self.tried_rate is None

    @property
    def rate_asked(self) -> Literal["given", "tried", "searched", "default"]:
        """Whence the rate: a number that was asked for, the plan's, a search, or the default."""
        if self.given_rate is not None:
            return "given"
        return "tried" if self.tried_rate is not None else "searched" if self.searches_rate else "default"

    @property
    def goes_by_readings(self) -> bool:
        """Whether validation readings decide when it ends or what it keeps."""
        return self.until == "flat" or self.keep == "best"

    @property
    def how(self) -> str:
        """The method with the options given, for tables: `adapter (kind=pfeiffer)`."""
        return describe(self.method, self.options)

    @property
    def tuned(self) -> str:
        """What is tuned and how, as people name it: `block 3`, `random blocks 1, 4, lora (r=4)`, `whole model`."""
        of_plan = self.role in ("choice", "manual") and not self.plan.is_full
        name = self.plan.label if of_plan else f"{self.role} {self.plan.label}"
        parts = ["whole model" if self.role == "full" or self.plan.is_full else name]
        parts += [] if self.method == "full" else [self.how]
        parts += [] if self.general is None else [f"{100 * self.general_share:.0f} % general data"]
        return ", ".join([*parts, *([f"seed {self.seed}"] if self.seed else [])])

    @property
    def name(self) -> str:
        """The same, and before it what the run stands for, for legends: `choice: block 3`, `by hand: block 3`."""
        stands = {"choice": "choice: ", "manual": "by hand: "}.get(self.role, "")
        return f"{stands}{self.tuned}"

    @classmethod
    def arranged(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Return what a file holds; one that says nothing of text pairs was written for raw ones."""
        return {"pairs": "raw", **value}


READINGS = 3
"""Readings in a row without a gain that end a run."""
GAIN = 0.01
"""Nats per completion token below the best reading before them that count as a gain."""


def flat_interval(spec: RunSpec, steps: int) -> int:
    """Return the steps between two readings of a run that ends when flat: as asked, else a twentieth of its cap."""
    return spec.eval_every or max(1, steps // 20)


def is_flat(losses: Sequence[float | None]) -> bool:
    """Say whether none of the last three readings is 0.01 nats below the best before them.

    The same rule for every method, at the same steps (`eval_every`), so that each gets the steps it needs. A slow
    start counts as flat too: below three readings after the first nothing is said.

    Args:
        losses: validation losses in the order they were read, the one before the first step included; None, as they are
            written down, or not finite where it was lost, which is no gain.
    """
    if len(losses) <= READINGS:
        return False
    earlier, latest = (
        [loss for loss in part if loss is not None and math.isfinite(loss)]
        for part in (losses[:-READINGS], losses[-READINGS:])
    )
    if not earlier:
        return not latest
    return all(loss > min(earlier) - GAIN for loss in latest)
