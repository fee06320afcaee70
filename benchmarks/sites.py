"""The sites of the study of evidence: a model and a task each, and how the tasks are read from the shared folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lsf.bundled.lessons import LESSONS, load_lesson
from lsf.data.task import Example, Task, split_examples

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
class Site:
    """One model and one task."""

    name: str
    """Of its file under benchmarks/evidence."""
    model: str
    """`bundled`, or a folder of the shared models."""
    task: Callable[[], Task]
    """Reads the data."""
    steps: int
    """Optimizer steps of every run."""
    metric: str
    """exact_match or loss: what plans are judged by."""

    @property
    def folder(self) -> str:
        """What `load_model` takes."""
        return self.model if self.model == "bundled" else str(SHARED / "models" / self.model)

    @property
    def there(self) -> bool:
        """False where the shared folder is missing."""
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
    words = (SHARED / "data/shakespeare/input.txt").read_text(encoding="utf-8").split()[: 20 * ROWS]
    pieces = [words[start : start + 20] for start in range(0, len(words), 20)]
    rows = [Example(" ".join(piece[:18]), " " + " ".join(piece[18:])) for piece in pieces if len(piece) == 20]
    return split_examples("Shakespeare", rows)


def _lesson(name: str) -> Site:
    return Site(f"bundled-{name}", "bundled", lambda: load_lesson(name), LESSONS[name].steps, "exact_match")


SITES = {
    site.name: site
    for site in (
        *(_lesson(name) for name in ("facts", "labels", "sums", "aliases", "twohop", "dialect")),
        Site("stories260K-sst2", "stories260K", sst2, 100, "loss"),
        Site("stories260K-trec", "stories260K", trec, 100, "loss"),
        Site("stories260K-shakespeare", "stories260K", shakespeare, 100, "loss"),
        Site("babyllama105-sst2", "babyllama105", sst2, 100, "loss"),
        Site("babyllama105-trec", "babyllama105", trec, 100, "loss"),
        Site("babyllama105-shakespeare", "babyllama105", shakespeare, 100, "loss"),
    )
}
"""In the order in which they are measured."""
