"""How much room the folder of runs takes, and how much it may take."""

import os
import re
from pathlib import Path

from lsf.errors import BadInputError

QUOTA_VARIABLE = "LSF_RUNS_QUOTA"
"""Environment variable: bytes the folder of runs may take, such as 50G; unset or empty: as much as the disk has."""
UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


class FullQuotaError(BadInputError):
    """The folder of runs has no room for another run."""


def runs_quota() -> float | None:
    """Return the bytes the folder of runs may take; None where there is no limit.

    Raises:
        BadInputError: the variable holds no size.
    """
    text = os.environ.get(QUOTA_VARIABLE, "").strip()
    if not text:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.upper())
    if match is None:
        raise BadInputError(f"{QUOTA_VARIABLE} is {text!r}; a number of bytes such as 50G was expected.")
    return float(match[1]) * UNITS[match[2]]


def bytes_of(runs: Path) -> int:
    """Return the bytes of all files in the folder of runs; one that vanishes meanwhile counts nothing."""
    total = 0
    for place, _, names in os.walk(runs):
        for name in names:
            try:
                total += (Path(place) / name).lstat().st_size
            except OSError:
                continue
    return total


def check_quota(runs: Path) -> None:
    """Refuse another run where the quota is used up; runs that go on are left alone.

    Raises:
        FullQuotaError: it is.
        BadInputError: the variable holds no size.
    """
    quota = runs_quota()
    if quota is not None and (used := bytes_of(runs)) >= quota:
        raise FullQuotaError(
            f"The runs in {runs} take {in_words(used)} of the {in_words(quota)} that {QUOTA_VARIABLE} grants; delete "
            "some (lsf runs delete RUN), or raise it."
        )


def usage(runs: Path) -> str:
    """Say what the runs take, and of how much."""
    quota = runs_quota()
    return f"{in_words(bytes_of(runs))} in {runs}" + ("" if quota is None else f", of {in_words(quota)} granted")


def in_words(count: float) -> str:
    """Write bytes for a sentence: `3.2 MB`, `14.1 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
