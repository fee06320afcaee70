"""Data sets of the Hugging Face hub: `NAME[:CONFIG][:SPLIT]`."""

from typing import Any

from lsf.data.tables import Table
from lsf.errors import DataError

MAX_ROWS = 200_000
"""Rows read of each split."""


def read_hub(address: str) -> dict[str, Table]:
    """Load a hub data set into one table per split (`train`, `validation`, `test`), or `all` where one was named.

    Args:
        address: `NAME`, `NAME:SPLIT` or `NAME:CONFIG:SPLIT`, where SPLIT is one of train, validation, test.

    Raises:
        DataError: unknown data set, configuration or split, or no network.
    """
    import datasets  # noqa: PLC0415 - seconds to import, and needed for hub data only
    from datasets.exceptions import DatasetNotFoundError  # noqa: PLC0415
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError  # noqa: PLC0415

    name, *rest = address.split(":")
    split = rest.pop() if rest and rest[-1] in ("train", "validation", "test") else None
    if not name or len(rest) > 1:
        raise DataError(f"Cannot read hub:{address}; write hub:NAME, hub:NAME:SPLIT or hub:NAME:CONFIG:SPLIT.")
    try:
        # One cheap request tells whether the hub answers; `datasets` would retry for half a minute.
        snapshot_download(name, repo_type="dataset", allow_patterns=["README.md"])
        offline = False
    except LocalEntryNotFoundError:
        offline = True
    except (HFValidationError, RepositoryNotFoundError):
        raise DataError(f"There is no data set {name!r} on the hub that this machine may read.") from None
    try:
        loaded: Any = datasets.load_dataset(
            name,
            rest[0] if rest else None,
            split=split,
            download_config=datasets.DownloadConfig(local_files_only=offline, max_retries=1),
        )
    except DatasetNotFoundError:
        raise DataError(f"There is no data set {name!r} on the hub that this machine may read.") from None
    except (ConnectionError, FileNotFoundError):
        raise DataError(
            f"The data set {name!r} is not cached here and the hub does not answer (no network?)."
        ) from None
    except ValueError as error:
        raise DataError(f"hub:{address} cannot be loaded: {error}") from None
    if split:
        return {"all": _table(address, loaded)}
    return {word: _table(address, loaded[word]) for word in ("train", "validation", "test") if word in loaded}


def _table(name: str, rows: Any) -> Table:
    kept = rows.select(range(min(len(rows), MAX_ROWS)))
    return Table(f"hub:{name}", tuple(kept.column_names), tuple(kept), tuple(range(1, len(kept) + 1)))
