"""LSF: which layers of a language model are worth tuning, with evidence.

    import lsf

    m = lsf.load("HuggingFaceTB/SmolLM2-135M-Instruct")  # or lsf.wrap(model, tokenizer)
    a = lsf.analyze(m, "data.jsonl")
    plan = a.recommend(blocks=6)
    lsf.freeze(m.model, plan)  # then any Trainer, with callbacks=[lsf.FrozenProof(plan)]

Importing this package loads neither torch nor Streamlit: a name is loaded when it is used.
ARCHITECTURE.md has the rooms.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsf.api import (
        RECOMMENDED,
        Analysis,
        Comparison,
        Plan,
        Run,
        Sweep,
        Tries,
        analyze,
        compare,
        load,
        read_data,
        recommend,
        sweep,
        try_depths,
        tune,
        wrap,
    )
    from lsf.models.loading import Model
    from lsf.training.proof import FrozenProof, freeze

__version__ = "0.1.0"
__all__ = [
    "RECOMMENDED",
    "Analysis",
    "Comparison",
    "FrozenProof",
    "Model",
    "Plan",
    "Run",
    "Sweep",
    "Tries",
    "analyze",
    "compare",
    "freeze",
    "load",
    "read_data",
    "recommend",
    "sweep",
    "try_depths",
    "tune",
    "wrap",
]


_ELSEWHERE = {
    "FrozenProof": "lsf.training.proof",
    "freeze": "lsf.training.proof",
    "Model": "lsf.models.loading",
}
"""Names that `lsf.api` does not hold, since they load torch."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lsf' has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, "lsf.api")), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
