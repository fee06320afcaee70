"""What the whole process shares: one worker with its queue, one model cache for the model, one folder of runs."""

import atexit
import threading
from typing import Any

import streamlit as st

from lsf.environment import settle_torch, spare_imports, uncollected
from lsf.jobs.job import JobState, JobView, Report
from lsf.jobs.worker import Worker

WARM_UP = "warm-up"


class AppRuntime:
    """The worker and the model cache of this process; every session and every tab looks at the same one."""

    def __init__(self) -> None:
        """Start the worker; torch is imported by its first job, not here."""
        settle_torch()
        self.worker = Worker("bench")
        self._model_cache: Any = None
        self._warm: str | None = None
        self._first = threading.Lock()
        atexit.register(self.worker.close)  # SIGTERM and Ctrl-C end the server in an orderly way: runs pause

    def warm_up(self) -> None:
        """Import torch and look for devices in the background; only the first call does anything."""
        with self._first:
            if self._warm is None:
                self._warm = self.worker.submit(WARM_UP, "getting ready", self._get_ready)

    @property
    def ready(self) -> bool:
        """True once torch is imported and devices can be listed at no cost."""
        return self._model_cache is not None

    @property
    def warming_failed(self) -> str | None:
        """Why getting ready failed, in one sentence; None where it did not."""
        if self._warm is None or self._model_cache is not None:
            return None
        view = self.worker.view(self._warm)
        return view.error if view.state is JobState.FAILED else None

    def model_cache(self) -> Any:
        """Return the `ModelCache`; for the worker's thread, since it may import torch."""
        if self._model_cache is None:
            from lsf.models.cache import ModelCache  # noqa: PLC0415 - imports torch: seconds

            self._model_cache = ModelCache()
        return self._model_cache

    def loaded(self) -> Any:
        """Return the `LoadedModel` on the model cache, or None; never imports anything."""
        return None if self._model_cache is None else self._model_cache.current

    def devices(self) -> tuple[Any, ...]:
        """Return the devices, best first, with the memory free now; empty until the process is ready."""
        if not self.ready:
            return ()
        from lsf.models.devices import list_devices  # noqa: PLC0415 - imports torch

        return list_devices()

    def jobs(self, *kinds: str) -> tuple[JobView, ...]:
        """Return the jobs of these kinds that the worker remembers, oldest first."""
        return tuple(view for view in self.worker.views() if view.kind in kinds)

    def _get_ready(self, report: Report) -> None:
        report.progress(0, None, "importing torch")
        with uncollected():
            import lsf.lens.analyze  # noqa: PLC0415 - seconds; afterwards every job starts at once
            import lsf.training.run  # noqa: F401, PLC0415

        spare_imports()  # before any model is there: what is spared and then dropped would stay
        self.model_cache()


@st.cache_resource(show_spinner=False)
def runtime() -> AppRuntime:
    """Return the bench of this process."""
    return AppRuntime()
