"""One read-only ordered table type for criteria, policies, methods, families and exports."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from lsf.errors import UnknownNameError


class Named(Protocol):
    """Anything with a name can be registered."""

    @property
    def name(self) -> str:
        """The key of the entry."""
        ...


EntryT = TypeVar("EntryT", bound=Named)


class Registry(Mapping[str, EntryT]):
    """An ordered, read-only table of named records; an unknown name is answered with the known ones."""

    def __init__(self, kind: str, entries: Iterable[EntryT]) -> None:
        """Index the entries by their own names.

        Args:
            kind: what one entry is, in the singular, for error messages.
            entries: the records, in the order in which they are listed to users.

        Raises:
            ValueError: two entries share a name.
        """
        self.kind = kind
        self._entries: dict[str, EntryT] = {}
        for entry in entries:
            if entry.name in self._entries:
                raise ValueError(f"two entries of the {kind} registry are called {entry.name!r}")
            self._entries[entry.name] = entry

    def __getitem__(self, name: str) -> EntryT:
        """Return the entry called `name`, or raise `UnknownNameError` naming those that exist."""
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        """Say whether `name` is registered (Mapping's own test would need a plain KeyError)."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in their listed order."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)
