"""A tiny loaded model and a task of made-up sentences it can learn."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lsf.data.task import Example, Task
from lsf.models.loading import LoadedModel, load_model
from lsf.plans.plan import Plan, full_plan
from lsf.progress import Unheard
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run
from lsf.training.run import tune
from tests.tiny import tiny_model, tiny_tokenizer

SUBJECTS = ("cat", "dog", "tree", "sky", "sun", "moon", "mat", "a")
COLOURS = ("red", "blue", "one", "two", "three", "four", "five", "under")


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tiny models are slower with more threads, and very much so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def loaded(tiny: Callable[[str], Path]) -> LoadedModel:
    return load_model(str(tiny("llama")), "float32", "cpu")


@pytest.fixture(scope="session")
def task() -> Task:
    examples = tuple(
        Example(f"the {subject} {verb}", f" {COLOURS[index]} {'.' if verb == 'is' else '?'}")
        for index, subject in enumerate(SUBJECTS)
        for verb in ("is", "was", "sat")
    )
    return Task("toy", train=examples, validation=examples[1::3], test=examples[::2])


@pytest.fixture
def spec(loaded: LoadedModel) -> RunSpec:
    return RunSpec(
        model=loaded.info.name,
        data="toy",
        plan=Plan("tiny", 4, (2,)),
        steps=6,
        batch_size=4,
        learning_rate=1e-2,
    )


@pytest.fixture
def full(spec: RunSpec) -> RunSpec:
    return replace(spec, role="full", plan=full_plan("tiny", 4))


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[RunSpec], Path]:
    return lambda spec: create_run(tmp_path / "runs", spec)


@pytest.fixture(scope="module")
def breaking(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A model whose block 1 cannot be tuned: its dead half waits behind weights near the largest float."""
    folder = tmp_path_factory.mktemp("breaking")
    model = tiny_model("llama")
    with torch.no_grad():
        mlp = model.model.layers[1].mlp
        mlp.up_proj.weight.zero_()
        mlp.down_proj.weight.fill_(3e38)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return load_model(str(folder), "float32", "cpu")


@pytest.fixture(scope="session")
def turned(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """`loaded` with the same weights under another config.json: its rotary code turns at other speeds."""
    folder = tmp_path_factory.mktemp("turned") / "model"
    shutil.copytree(tiny("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] *= 50
    (folder / "config.json").write_text(json.dumps(config))
    return load_model(str(folder), "float32", "cpu")


@pytest.fixture
def asked(tiny: Callable[[str], Path], task: Task, tmp_path: Path) -> list[str]:
    data = tmp_path / "toy.jsonl"
    rows = [{"prompt": row.prompt, "completion": row.completion} for row in (*task.train, *task.test)]
    data.write_text("\n".join(json.dumps(row) for row in rows))
    fixed = ["--over", "single", "--seeds", "2", "--learning-rate", "0.01", "--device", "cpu", "--steps", "16"]
    return ["sweep", "--model", str(tiny("llama")), "--data", str(data), *fixed, "--json"]


class Stopper(Unheard):
    """A reporter that asks to stop once a given number of steps is done."""

    def __init__(self, after: int, how: Any) -> None:
        self.after, self.how, self.stop = after, how, None

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        if message.startswith("step") and done >= self.after:
            self.stop = self.how


def tuned(*arguments: Any) -> Any:
    """`tune`, for tests that read results whose parts they know to be there."""
    return tune(*arguments)
