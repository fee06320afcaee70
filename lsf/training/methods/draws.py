"""Random numbers as a function of a key and a position, the same on every device: nothing drawn has to be stored.

A counter goes through two rounds of an integer hash (the public-domain constants of C. Wellons' lowbias32);
permutations of a power of two come from steps each of which can be undone.
"""

import hashlib

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
