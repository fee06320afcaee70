"""The one loaded model of a process: asked for by name, shared by every job, given back on request."""

import gc
import threading
from pathlib import Path

from lsf.models.devices import give_back_cached
from lsf.models.loading import LoadedModel, load_model

Key = tuple[str, str, str, tuple[tuple[str, int, int], ...]]


class ModelCache:
    """Holds at most one loaded model; the old one is dropped before another is loaded."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._key: Key | None = None
        self._loaded: LoadedModel | None = None

    @property
    def current(self) -> LoadedModel | None:
        """The loaded model, or None."""
        return self._loaded

    def load(self, name: str, dtype: str = "auto", device: str = "auto") -> LoadedModel:
        """Return the model, loading it only if it is not in the cache yet, or its folder has changed since.

        Raises:
            ModelError: see `load_model`; the cache is empty afterwards.
        """
        with self._lock:
            key = (name, dtype, device, _files(name))
            if self._loaded is None or self._key != key:
                self._drop()
                self._loaded, self._key = load_model(name, dtype, device), key
            return self._loaded

    def unload(self) -> int | None:
        """Drop the model and return the bytes of its weights, or None where nothing was loaded."""
        with self._lock:
            if self._loaded is None:
                return None
            freed = sum(parameter.nbytes for parameter in self._loaded.model.parameters())
            self._drop()
            return freed

    def _drop(self) -> None:
        self._loaded, self._key = None, None
        gc.collect()
        give_back_cached()


def _files(name: str) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of change of a folder's files, or of a GGUF file; nothing of other names."""
    place = Path(name).expanduser()
    try:
        files = sorted(place.iterdir()) if place.is_dir() else [place] if place.is_file() else []
        known = [(file.name, file.stat()) for file in files]
    except OSError:
        return ()
    return tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in known)
