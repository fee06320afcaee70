"""The settings of the study of evidence: a model and a task each, and how the tasks are read from the shared folder."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from benchmarks.pretrained import SPECS, folder_of
from lsf.data.lessons import LESSONS, load_lesson
from lsf.data.task import Example, Task, split_examples
from lsf.evidence.regret import Metric

SHARED = Path(__file__).parents[2] / "shared"
ROWS = 3000
"""Rows read of a real file, from its start; split 80/10/10 as any file is."""
TREC_WORDS = {
    "DESC": "description",
    "ENTY": "thing",
    "ABBR": "letters",
    "HUM": "person",
    "LOC": "place",
    "NUM": "number",
}
"""Coarse class of a TREC question -> what the model is to say."""


@dataclass(frozen=True)
class Setting:
    """One model and one task."""

    name: str
    """Of its file under benchmarks/evidence."""
    model: str
    """`bundled`, one of `benchmarks.pretrained`, or a folder of the shared models."""
    task: Callable[[], Task]
    """Reads the data."""
    steps: int
    """Optimizer steps of every run."""
    metric: Metric
    """exact_match or loss: what plans are judged by."""
    batch_size: int = 16
    """Examples per step."""
    eval_limit: int = 256
    """Validation and test examples read at most."""

    @property
    def folder(self) -> str:
        """What `load_model` takes."""
        if self.model == "bundled":
            return self.model
        return str(folder_of(self.model) if self.model in SPECS else SHARED / "models" / self.model)

    @property
    def there(self) -> bool:
        """False where the model's folder is missing."""
        return self.model == "bundled" or Path(self.folder).is_dir()


def _read(name: str) -> list[str]:
    return (SHARED / "data" / name).read_text(encoding="latin-1").splitlines()[:ROWS]


def sst2() -> Task:
    """Return reviews to be judged good or bad."""
    pairs = (line.split(" ", 1) for line in _read("sst2/train.txt"))
    rows = [Example(f"Review: {text}\nIt was", " good" if label == "1" else " bad") for label, text in pairs]
    return split_examples("SST-2", rows)


def trec() -> Task:
    """Return questions whose kind of answer is to be named."""
    pairs = (line.split(" ", 1) for line in _read("trec/train.txt"))
    rows = [Example(f"Question: {text}\nKind:", f" {TREC_WORDS[label.partition(':')[0]]}") for label, text in pairs]
    return split_examples("TREC", rows)


def shakespeare() -> Task:
    """Return pieces of plays whose next two words are to be written."""
    words = (SHARED / "data/shakespeare/input.txt").read_text(encoding="utf-8").split()[: 12 * ROWS]
    pieces = [words[start : start + 12] for start in range(0, len(words), 12)]
    rows = [Example(" ".join(piece[:10]), " " + " ".join(piece[10:])) for piece in pieces if len(piece) == 12]
    return split_examples("Shakespeare", rows)


def alpaca() -> Task:
    """Return instructions whose answer's first five words are to be written."""
    rows = json.loads((SHARED / "data/alpaca/alpaca_en_demo.json").read_text(encoding="utf-8"))
    pairs = ((f"{row['instruction']} {row['input']}".strip(), " ".join(row["output"].split()[:5])) for row in rows)
    return split_examples("Alpaca", [Example(f"{asked}\n", answer) for asked, answer in pairs if answer])


def _lesson(model: str, name: str) -> Setting:
    return Setting(f"{model}-{name}", model, lambda: load_lesson(name), LESSONS[name].steps, "exact_match")


def _real(model: str, name: str, task: Callable[[], Task]) -> Setting:
    return Setting(f"{model}-{name}", model, task, steps=40, metric="loss", batch_size=8, eval_limit=128)


TASKS = {"shakespeare": shakespeare, "trec": trec, "alpaca": alpaca, "sst2": sst2}
"""Read from the shared folder."""
TAUGHT = ("facts", "labels", "sums", "aliases", "twohop", "dialect")
"""Lessons, in the order of the table."""
SETTINGS = {
    setting.name: setting
    for setting in (
        *(_lesson("bundled", name) for name in TAUGHT),
        *(_real("stories260K", name, task) for name, task in TASKS.items()),
        *(_real("babyllama105", name, task) for name, task in TASKS.items()),
        *(_lesson(model, name) for model in SPECS for name in TAUGHT),
    )
}
"""By name."""
WAVES = {
    "the rule was made with": (
        *("plain8-*", "stories260K-*", "babyllama105-*", "reseeded-*"),
        *(f"gpt2x12-{name}" for name in ("facts", "labels", "sums", "aliases")),
    ),
    "first test (254ba49)": ("gpt2x12-twohop", "gpt2x12-dialect", "narrow12-*"),
    "second test (8981da2)": ("*x8-*",),
    "added to it (28e8d81)": ("wide6-*",),
    "third test (646cff1)": ("bundled-*",),
}
"""When a setting was measured -> patterns of names; a test was announced in LOG.md (now docs/findings) by that commit,
before it was made."""


def waves_of(names: Iterable[str]) -> dict[str, list[str]]:
    """Return wave -> its names, in the order of `WAVES`; then all tests together."""
    known = list(names)
    found = {wave: [name for name in known if any(map(partial(fnmatch, name), own))] for wave, own in WAVES.items()}
    tests = [name for wave in [*WAVES][1:] for name in found[wave]]
    return {**found, "all tests": tests}
