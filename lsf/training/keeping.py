"""The tuned values of the best validation reading, held in main memory and in every checkpoint."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

FILE = "best.safetensors"
"""In a checkpoint: the values of the best reading until then."""


class Best:
    """Copies a model's tuned values whenever a reading is better than all before it; of equals the first is kept."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.step: int | None = None
        self._loss = math.inf
        self._values: dict[str, torch.Tensor] = {}

    def look(self, step: int, loss: float | None, model: Any) -> None:
        """Take a reading; the one before the first step is none, since nothing is tuned there.

        Args:
            step: steps done.
            loss: validation loss in nats per token; None or not finite is never the best.
            model: as it is now.
        """
        if step < 1 or loss is None or not loss < self._loss:
            return
        self.step, self._loss = step, loss
        self._values = {name: value.detach().to("cpu", copy=True) for name, value in _tuned(model).items()}

    def restore(self, model: Any) -> None:
        """Put the values held back into the model; nothing where no reading was made."""
        with torch.no_grad():
            for name, value in _tuned(model).items():
                if name in self._values:
                    value.copy_(self._values[name])

    def save(self, folder: Path) -> None:
        """Write what is held into a checkpoint."""
        if self.step is not None:
            save_file(self._values, folder / FILE, {"about": json.dumps([self.step, self._loss])})

    def load(self, folder: Path) -> None:
        """Take up what a checkpoint held; nothing where it was written before any reading."""
        if (folder / FILE).is_file():
            with safe_open(folder / FILE, "pt") as file:
                self.step, self._loss = json.loads(file.metadata()["about"])
                self._values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a mapping


def _tuned(model: Any) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}
