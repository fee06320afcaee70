"""The default rate on a loaded model: what a spec's word `default` means once the model is known."""

from dataclasses import replace
from typing import Any

from lsf.analysis.plan import Plan
from lsf.jobs.spec import METHODS_OWN, RunSpec
from lsf.measure.loading import LoadedModel
from lsf.training.catalogue import options_of
from lsf.training.default_rates import LAWS, default_rate, spread_of, tuned_of
from lsf.training.methods import METHODS, planned_names


def own_rate(loaded: LoadedModel, plan: Plan, method: str = "full", options: Any = None) -> float:
    """Return the default rate of a method for a plan on a model.

    Args:
        loaded: the model.
        plan: what is tuned.
        method: key in METHODS.
        options: its options record; None where it has none.

    Raises:
        PlanError: the plan does not fit the model.
    """
    spread = 1.0
    if LAWS[method].projected:
        values, tensors = METHODS["full"].count(loaded, plan, None), len(planned_names(loaded, plan))
        spread = spread_of(options.d, values, tensors)
    return default_rate(method, tuned_of(loaded.info, plan, spread))


def spec_rate(loaded: LoadedModel, spec: RunSpec) -> float:
    """Return the default rate of what a spec tunes, whatever rate it asks for."""
    return own_rate(loaded, spec.plan, spec.method, options_of(spec.method, spec.options))


def resolved(loaded: LoadedModel, spec: RunSpec) -> RunSpec:
    """Return the spec with the number its word `default` stands for; as it is where a rate was given or is searched."""
    return replace(spec, learning_rate=spec_rate(loaded, spec)) if spec.learning_rate == METHODS_OWN else spec
