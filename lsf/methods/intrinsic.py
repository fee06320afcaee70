"""DID and SAID: all planned values moved by a few numbers, theta = theta_0 + P(v), in SAID scaled per block.

P goes from d numbers to D: the Fastfood transform and two plain random projections, drawn from a seed at every use.
"""

import hashlib
import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lsf.errors import BadInputError
from lsf.methods.context import MethodContext, planned_names
from lsf.methods.parametrization import Parametrization, parametrize_
from lsf.models.sharing import share_model
from lsf.plans.plan import Plan, place_of

BITS = 23
"""Bits of a uniform number, so that every value on the way to a Gaussian is exact in float32."""
ROUNDS = 4
"""Steps of a permutation."""


def key_of(*parts: int | str) -> tuple[int, ...]:
    """Return eight 32-bit numbers (signed) that belong to a stream of draws."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return tuple(int.from_bytes(digest[at : at + 4], "little", signed=True) for at in range(0, 32, 4))


def hashed(counters: Int[Tensor, "*n"], first: int, second: int) -> Int[Tensor, "*n"]:
    """Return 32 random bits per counter.

    Args:
        counters: int32.
        first: key of the first round.
        second: key of the second round.
    """
    return _mix(_mix(counters ^ first) + second)


def _mix(x: Tensor) -> Tensor:
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - 2**32)
    return x ^ ((x >> 16) & 0xFFFF)


def counters(n: int, device: torch.device) -> Int[Tensor, " n"]:
    """Return 0 .. n-1 as int32."""
    return torch.arange(n, dtype=torch.int32, device=device)


def signs(bits: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return +1 or -1 per draw, by its highest bit."""
    return (bits >= 0).float().mul_(2).sub_(1)


def gaussians(bits: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return a standard normal number per draw: the inverse distribution function at the middle of one of 2^23 bins."""
    odd = ((bits >> 8) & (2**BITS - 1)) * 2 + (1 - 2**BITS)
    return (odd.float() / 2**BITS).erfinv_().mul_(2**0.5)


def permutation(n: int, key: tuple[int, ...], device: torch.device) -> Int[Tensor, " n"]:
    """Return a permutation of 0 .. n-1, n a power of two, as int64 positions.

    Every round (exclusive or, odd factor modulo n, fold the upper half of the bits into the lower) can be undone, so no
    number comes twice.
    """
    width = n.bit_length() - 1
    x = torch.arange(n, device=device)
    for number in range(ROUNDS):
        x = ((x ^ (key[number] & (n - 1))) * (key[number + 4] | 1)) & (n - 1)
        x = x ^ (x >> ((width + 1) // 2)) if width else x
    return x


RADIX = 6
"""The Walsh-Hadamard transform takes so many bits at a time, as products with a matrix of 2^RADIX."""
CHUNK = 2**22
"""Entries of a dense projection held at once."""


@runtime_checkable
class Projection(Protocol):
    """A fixed linear map from d numbers to `n`."""

    def apply(self, v: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
        """Return P v."""
        ...

    def adjoint(self, g: Float[Tensor, " n"]) -> Float[Tensor, " d"]:
        """Return P^T g."""
        ...


@dataclass(frozen=True)
class Fastfood:
    """P v = the first n entries of H G Pi H B pad(v), divided by sqrt(L sum(g^2)) sqrt(n / L).

    L = max(next power of two of n, of d); B = +-1, Pi a permutation, G normal, H the Walsh-Hadamard transform without
    a factor. O(L log L) time, O(L) memory.

    Source: Le et al. 2013 as used by Aghajanyan et al. 2020, arXiv 2012.13255.
    """

    d: int
    """Numbers it starts from."""
    n: int
    """Numbers it ends at."""
    key: str
    """Of its random parts."""

    @property
    def length(self) -> int:
        """L."""
        return 1 << (max(self.n, self.d) - 1).bit_length()

    def apply(self, v: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
        """Return P v."""
        b, order, g, scale = self._parts(v)
        x = _spread(v * b[: self.d], self.length)
        return _gathered(x[order] * g, self.n) / scale

    def adjoint(self, g: Float[Tensor, " n"]) -> Float[Tensor, " d"]:
        """Return P^T g: the same factors in reverse, H being its own transpose."""
        b, order, normal, scale = self._parts(g)
        x = _spread(g, self.length) * normal
        return _gathered(torch.empty_like(x).index_copy_(0, order, x), self.d) * b[: self.d] / scale

    def _parts(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        length, device = self.length, like.device
        one, two, key = (key_of(self.key, part) for part in ("B", "G", "Pi"))
        places = counters(length, device)
        b = signs(hashed(places, one[0], one[1])).to(like.dtype)
        g = gaussians(hashed(places, two[0], two[1])).to(like.dtype)
        scale = (length * g.square().sum()).sqrt() * math.sqrt(self.n / length)
        return b, permutation(length, key, device), g, scale


@dataclass(frozen=True)
class KeptFastfood(Fastfood):
    """Fastfood whose parts are drawn once and stay in memory, 16 bytes per entry of L: the same numbers, sooner.

    For studies of many short runs, where time is short and memory is not; a run draws them anew in every step.
    """

    kept: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = field(default_factory=dict, compare=False)
    """Device and dtype -> B, Pi, G and the scale."""

    def _parts(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        where = (like.device, like.dtype)
        if where not in self.kept:
            self.kept[where] = super()._parts(like)
        b, order, g, scale = self.kept[where]
        return b, order, g, scale


@dataclass(frozen=True)
class Dense:
    """P of independent normal entries with variance 1 / n: O(n d) time, nothing held but a few rows.

    Source: Li et al. 2018, arXiv 1804.08838.
    """

    d: int
    """Numbers it starts from."""
    n: int
    """Numbers it ends at."""
    key: str
    """Of its random parts."""

    def apply(self, v: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
        """Return P v."""
        return torch.cat([self._rows(start, v) @ v for start in range(0, self.n, self._step)])

    def adjoint(self, g: Float[Tensor, " n"]) -> Float[Tensor, " d"]:
        """Return P^T g."""
        total = torch.zeros(self.d, dtype=g.dtype, device=g.device)
        for start in range(0, self.n, self._step):
            total += g[start : start + self._step] @ self._rows(start, g)
        return total

    @property
    def _step(self) -> int:
        return max(1, CHUNK // self.d)

    def _rows(self, start: int, like: Tensor) -> Tensor:
        one, two = key_of(self.key, "rows"), key_of(self.key, "columns")
        rows = hashed(counters(self.n, like.device)[start : start + self._step], one[0], one[1])
        columns = hashed(counters(self.d, like.device), two[0], two[1])
        bits = hashed(rows[:, None] + columns[None, :], one[2], two[2])
        return gaussians(bits).to(like.dtype) / math.sqrt(self.n)


@dataclass(frozen=True)
class Sparse:
    """P with about sqrt(n) entries +-n^(-1/4) per column, at random places: O(d sqrt(n)) time.

    A fixed number of entries per column, where the source draws each entry with probability 1 / sqrt(n) (our choice).

    Source: Li, Hastie & Church 2006, as used by Li et al. 2018, arXiv 1804.08838.
    """

    d: int
    """Numbers it starts from."""
    n: int
    """Numbers it ends at."""
    key: str
    """Of its random parts."""

    def apply(self, v: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
        """Return P v."""
        places, values = self._entries(v)
        total = torch.zeros(self.n, dtype=v.dtype, device=v.device)
        return total.index_add_(0, places.flatten(), (v[:, None] * values).flatten())

    def adjoint(self, g: Float[Tensor, " n"]) -> Float[Tensor, " d"]:
        """Return P^T g."""
        places, values = self._entries(g)
        return (g[places] * values).sum(1)

    def _entries(self, like: Tensor) -> tuple[Tensor, Tensor]:
        per_column = math.isqrt(self.n - 1) + 1
        one, two = key_of(self.key, "columns"), key_of(self.key, "entries")
        columns = hashed(counters(self.d, like.device), one[0], one[1])
        entries = hashed(counters(per_column, like.device), two[0], two[1])
        whole = columns[:, None] + entries[None, :]
        places = (hashed(whole, one[2], two[2]).long() & (2**31 - 1)) % self.n
        return places, signs(hashed(whole, one[3], two[3])).to(like.dtype) / math.sqrt(per_column)


KINDS: dict[str, type[Fastfood] | type[Dense] | type[Sparse]] = {"fastfood": Fastfood, "dense": Dense, "sparse": Sparse}
"""By the names of `lsf.methods.catalogue.PROJECTIONS`."""


def hadamard(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the unnormalised Walsh-Hadamard transform of a vector whose length is a power of two; O(n log n)."""
    n, stride = len(x), 1
    while stride < n:
        size = min(1 << RADIX, n // stride)
        matrix = _walsh(size, x)
        x = (x.view(-1, size) @ matrix if stride == 1 else matrix @ x.view(-1, size, stride)).reshape(n)
        stride *= size
    return x


def _spread(start: Float[Tensor, " k"], length: int) -> Float[Tensor, " n"]:
    """Return H of a vector of this length that is 0 beyond its start: H of the start, repeated."""
    used = 1 << (len(start) - 1).bit_length()
    return hadamard(torch.nn.functional.pad(start, (0, used - len(start)))).repeat(length // used)


def _gathered(x: Float[Tensor, " n"], count: int) -> Float[Tensor, " k"]:
    """Return the first entries of H x: H of the sum of the pieces of x."""
    return hadamard(x.view(-1, 1 << (count - 1).bit_length()).sum(0))[:count]


def _walsh(size: int, like: Tensor) -> Tensor:
    return _matrix(size, like.dtype, like.device)


@cache
def _matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    matrix = torch.ones(1, 1, dtype=dtype, device=device)
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=dtype, device=device)
    while len(matrix) < size:
        matrix = torch.kron(matrix, pair)
    return matrix


class _Project(torch.autograd.Function):
    """P v, whose backward pass is P^T; neither keeps anything of P."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, v: Tensor, projection: Projection) -> Tensor:
        ctx.projection = projection  # type: ignore[attr-defined]
        return projection.apply(v)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.projection.adjoint(gradients[0]), None  # type: ignore[attr-defined]


def project(v: Float[Tensor, " d"], projection: Projection) -> Float[Tensor, " n"]:
    """Return P v with its gradient."""
    result = _Project.apply(v, projection)
    assert isinstance(result, Tensor)
    return result


NAME = "intrinsic"
"""Attribute under which a prepared model holds what is tuned."""


class Coordinates(nn.Module):
    """What is tuned: v, and in SAID one lambda per group of tensors."""

    def __init__(self, d: int, n_groups: int) -> None:
        """Start at v = 0 and lambda = 1: theta is theta_0.

        Args:
            d: numbers of v.
            n_groups: numbers of lambda; 0 for DID.
        """
        super().__init__()
        self.v = nn.Parameter(torch.zeros(d))
        self.lambdas = nn.Parameter(torch.ones(n_groups)) if n_groups else None


class Moved(Parametrization):
    """theta_i = theta_0i + lambda P_i(v)."""

    def __init__(self, coordinates: Coordinates, projection: Projection, group: int) -> None:
        """Keep what is shared by all tensors without owning it: it is the model's own.

        Args:
            coordinates: v and the lambdas.
            projection: P_i.
            group: which lambda.
        """
        super().__init__()
        self._shared, self._projection, self._group = (coordinates,), projection, group

    def changed(self, base: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the moved tensor in float32."""
        coordinates = self._shared[0]
        step = project(coordinates.v, self._projection)
        if coordinates.lambdas is not None:
            step = coordinates.lambdas[self._group] * step
        return base.float() + step.view_as(base)


@dataclass(frozen=True)
class IntrinsicMethod:
    """DID, or SAID with its lambdas, which are paid for out of d."""

    name: str
    """Of the method."""
    scaled: bool
    """Whether there are lambdas."""

    def prepare(self, loaded: Any, plan: Plan, context: MethodContext) -> Any:
        """Return a model whose planned tensors move along P; B, Pi and G come from the seed and are never stored.

        Raises:
            PlanError: the plan does not fit the model.
            BadInputError: d is above the number of planned values, or leaves nothing beside the lambdas.
        """
        d, groups = self.count(loaded, plan, context.options), self.groups(loaded, plan)
        n_groups = max(groups.values()) + 1 if self.scaled else 0
        fast = KeptFastfood if context.keep_draws else Fastfood
        kind = fast if context.options.projection == "fastfood" else KINDS[context.options.projection]
        model = share_model(loaded.model)
        coordinates = Coordinates(d - n_groups, n_groups).to(loaded.device)
        for index, (name, group) in enumerate(groups.items()):
            size = model.get_parameter(name).numel()
            projection = kind(d - n_groups, size, f"{context.seed}/{index}")
            parametrize_(model, name, Moved(coordinates, projection, group))
        model.add_module(NAME, coordinates)
        return model.eval()

    def count(self, loaded: Any, plan: Plan, options: Any) -> int:
        """Return d; raises as `prepare`."""
        groups, parameters = self.groups(loaded, plan), dict(loaded.model.named_parameters())
        total = sum(parameters[name].numel() for name in groups)
        least = self.least(loaded, plan)
        if not least <= options.d <= total:
            raise BadInputError(
                f"The method {self.name}: d is {options.d}; for {place_of(plan)} of {loaded.info.name} it must lie "
                f"between {least} and {total}, the number of planned values."
            )
        return options.d

    def least(self, loaded: Any, plan: Plan) -> int:
        """Return the smallest d: 1, and a lambda per group."""
        return 1 + (max(self.groups(loaded, plan).values()) + 1 if self.scaled else 0)

    def groups(self, loaded: Any, plan: Plan) -> dict[str, int]:
        """Return planned parameter name -> number of its group, in the model's order.

        One group per block; final norm and head are one; embeddings, of positions too, are one (our choice).
        """
        layout = loaded.layout
        after = tuple(f"{name}." for name in (layout.final_norm_name, layout.head_name) if name is not None)
        kinds: dict[str, str] = {}
        for name in planned_names(loaded, plan):
            block = next((block for block in layout.block_names if name.startswith(f"{block}.")), None)
            kinds[name] = block or ("head" if name.startswith(after) else "embedding")
        order = list(dict.fromkeys(kinds.values()))
        return {name: order.index(kind) for name, kind in kinds.items()}


INTRINSIC = {one.name: one for one in (IntrinsicMethod("did", scaled=False), IntrinsicMethod("said", scaled=True))}
"""By name."""
