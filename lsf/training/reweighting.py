"""Examples weighted in the loss by how far the model still is from their targets, measured anew at every pass.

Inspired by "Semantics as beacons" (Wang & Li 2024, arXiv 2405.18292); the formulas are our choice (`analysis/beacons`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from lsf.analysis.beacons import fell, weights
from lsf.data.encode import EncodedExample
from lsf.errors import BadInputError
from lsf.jobs.spec import RunSpec
from lsf.measure.anatomy import resolve
from lsf.measure.distances import target_distances
from lsf.training.batches import autocasting
from lsf.training.evaluation import do_nothing
from lsf.training.parametrization import held_still
from lsf.training.processes import n_processes

FILE = "reweighting.safetensors"
"""In a checkpoint: the weights of the pass it lies in cannot be measured again, the model has moved on."""


def reweighting_of(
    spec: RunSpec, loaded: Any, model: Any, rows: Sequence[EncodedExample], check: Callable[[], None]
) -> "Reweighting | None":
    """Return the re-weighting that a run asks for; None where all its rows count alike.

    Args:
        spec: of the run.
        loaded: its base.
        model: that is tuned.
        rows: training rows.
        check: called before each reading; may raise to end it.

    Raises:
        BadInputError: several processes share the run.
    """
    tau = spec.reweight_tau
    return None if tau is None else Reweighting(model, loaded, rows, tau, spec.batch_size, check)


class Reweighting(TrainerCallback):
    """Loss weights softmax(s / tau) x N, where s is each training row's distance of the last state from its target.

    Measured with the model as it is when a pass over the rows begins; a batch that spans two passes has the weights of
    the one it begins in. The mean weight is 1, so the learning rate means what it means without.
    """

    def __init__(
        self,
        model: Any,
        loaded: Any,
        rows: Sequence[EncodedExample],
        tau: float,
        batch_size: int,
        check: Callable[[], None] = do_nothing,
    ) -> None:
        """Measure nothing yet.

        Args:
            model: that is tuned.
            loaded: its base: family and dtype.
            rows: training rows, in the numbers that batches name.
            tau: softness; small weighs the farthest rows alone.
            batch_size: rows per optimizer step.
            check: called before each reading; may raise to end it.

        Raises:
            BadInputError: several processes share the run.
        """
        if n_processes() > 1:
            raise BadInputError("Re-weighting by distance runs in one process; leave out --reweight-tau.")
        self._model, self._rows, self._tau, self._batch_size, self._check = model, rows, tau, batch_size, check
        self._anatomy, self._dtype = resolve(model, loaded.anatomy.family), loaded.info.dtype
        self._pass, self._first = -1, np.full(len(rows), np.nan)
        self._weights = torch.ones(len(rows), dtype=torch.float64)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure where a pass begins."""
        number = state.global_step * self._batch_size // len(self._rows)
        if number == self._pass:
            return
        distance = self.distances()
        if self._pass < 0:
            self._first = distance
        self._pass, self._weights = number, torch.from_numpy(weights(distance, self._tau))

    def of(self, numbers: Sequence[int], like: Tensor) -> Float[Tensor, " examples"]:
        """Return the weights of rows, on the device and in the dtype of `like`."""
        return self._weights[list(numbers)].to(like)

    @property
    def weights(self) -> Float[Tensor, " rows"]:
        """Weights of the pass the loop is in."""
        return self._weights

    def distances(self) -> Float[np.ndarray, " rows"]:
        """Return every row's distance with the model as it is now, in [0, 2]."""
        self._check()
        with held_still(self._model), autocasting(self._model, self._dtype):
            return target_distances(self._anatomy, self._rows).astype(np.float64)

    def fallen(self) -> float:
        """Return the share of rows that are nearer to their targets now than before the first step, in [0, 1]."""
        return fell(self._first, self.distances())

    def save(self, folder: Path) -> None:
        """Write what a resumed loop needs."""
        first, number = torch.from_numpy(self._first), torch.tensor(self._pass)
        save_file({"weights": self._weights, "first": first, "pass": number}, folder / FILE)

    def load(self, folder: Path) -> None:
        """Go on with what `save` wrote."""
        kept = load_file(folder / FILE)
        self._weights, self._first, self._pass = kept["weights"], kept["first"].numpy(), int(kept["pass"])
