"""Examples by how far each is from its target in the last latent space: chosen once, or weighted anew at every pass."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from lsf.data.encode import EncodedExample
from lsf.errors import BadInputError
from lsf.lens.forward import Wanted, stream_readings
from lsf.lens.semantics import semantic_bases
from lsf.methods.parametrization import held_still
from lsf.models.batches import MOST_PADDING, autocasting, make_batches
from lsf.models.devices import input_device
from lsf.models.layout import ModelLayout, resolve
from lsf.progress import do_nothing
from lsf.runs.spec import RunSpec
from lsf.training.processes import n_processes
from lsf.wording import counted


def filtered(distance: Float[np.ndarray, " n"], count: int) -> Int[np.ndarray, " count"]:
    """Return examples chosen greedily for a small mean and a large variance of their distance.

    The nearest example comes first; each further one is that which makes variance minus mean of the chosen greatest.

    Args:
        distance: 1 - cos between an example's last state and its target, in [0, 2].
        count: how many are kept.

    Returns:
        Indices in the order they were chosen.

    Raises:
        BadInputError: more are asked for than there are, or none.
    """
    check_count(len(distance), count)
    chosen = [int(np.argmin(distance))]
    left = np.ones(len(distance), bool)
    left[chosen[0]] = False
    total, squares = float(distance[chosen[0]]), float(distance[chosen[0]]) ** 2
    while len(chosen) < count:
        size = len(chosen) + 1
        mean = (total + distance) / size
        variance = (squares + distance**2) / size - mean**2
        best = int(np.argmax(np.where(left, variance - mean, -np.inf)))
        chosen.append(best)
        left[best] = False
        total, squares = total + float(distance[best]), squares + float(distance[best]) ** 2
    return np.array(chosen)


def weights(distance: Float[np.ndarray, " n"], tau: float) -> Float[np.ndarray, " n"]:
    """Return softmax(distance / tau) x n: mean 1, the further an example is from its target the heavier.

    Raises:
        BadInputError: tau is not a number above zero.
    """
    if not (math.isfinite(tau) and tau > 0):
        raise BadInputError(f"tau is {tau}; a number above zero was expected.")
    raised = np.exp((distance - distance.max()) / tau)
    return len(distance) * raised / raised.sum()


def drawn(distance: Float[np.ndarray, " n"], count: int, tau: float, seed: int) -> Int[np.ndarray, " count"]:
    """Return examples drawn with replacement, each as often as its weight says: re-weighting for any trainer."""
    check_count(max(len(distance), count), count)
    share = weights(distance, tau) / len(distance)
    return np.random.default_rng(seed).choice(len(distance), count, p=share)


def control(n: int, count: int, seed: int) -> Int[np.ndarray, " count"]:
    """Return a random subset of the same size."""
    check_count(n, count)
    return np.random.default_rng(seed).permutation(n)[:count]


def fell(before: Float[np.ndarray, " n"], after: Float[np.ndarray, " n"]) -> float:
    """Return the share of examples whose distance fell, in [0, 1]."""
    return float(np.mean(after < before))


def check_count(n: int, count: int) -> None:
    """Refuse a number of examples to be kept.

    Raises:
        BadInputError: more are asked for than there are, or none.
    """
    if not 1 <= count <= n:
        are = "is" if count == 1 else "are"
        raise BadInputError(f"{counted(count, 'example')} {are} to be kept; the data has {n}, so 1 to {n} can be.")


def target_distances(
    layout: ModelLayout, rows: Sequence[EncodedExample], batch_size: int = 16
) -> Float[np.ndarray, " n"]:
    """Return 1 - cos(f_L, s_y), the target deviation of the last state, of each example.

    At its first completion token; of a chat of several turns or of plain text, the mean over its probed positions.

    Args:
        layout: of the model; unchanged.
        rows: encoded examples.
        batch_size: examples per forward pass.
    """
    batches = make_batches(rows, "first", batch_size, 0, input_device(layout.model), MOST_PADDING)
    total, count = np.zeros(len(rows)), np.zeros(len(rows))
    bases = semantic_bases(layout.head_weight)
    for read in stream_readings(layout, bases, batches, Wanted()):
        np.add.at(total, read.examples, 1.0 - np.clip(read.to_target[:, -1], -1.0, 1.0))
        np.add.at(count, read.examples, 1)
    return (total / count).astype(np.float32)


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
            raise BadInputError("Re-weighting by distance runs in one process; leave the softness (reweight_tau) out.")
        self._model, self._rows, self._tau, self._batch_size, self._check = model, rows, tau, batch_size, check
        self._layout, self._dtype = resolve(model, loaded.layout.family), loaded.info.dtype
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
            return target_distances(self._layout, self._rows).astype(np.float64)

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
