"""`tune --forecast`: what a run would need, told and not done."""

from typing import Any

from lsf.jobs.phases import PHASES
from lsf.jobs.spec import RunSpec
from lsf.training.footprint import PART_WORDS, Forecast, in_words


def print_forecast(loaded: Any, task: Any, spec: RunSpec) -> int:
    """Forecast a run and print it; return the exit code: 0 also where it does not fit, since nothing failed."""
    from lsf.training.forecast import forecast

    print("\n".join(forecast_lines(forecast(loaded, task, spec))))
    return 0


def forecast_lines(found: Forecast) -> list[str]:
    """Return a forecast as lines of text."""
    parts = {PART_WORDS[name]: value for name, value in vars(found.parts).items()}
    rows = [
        (f"{found.spec.plan.label}, method {found.spec.how}", f"on {found.device}"),
        ("tuned parameters", f"{found.trainable_params:,}"),
        ("FLOPs over full fine-tuning's", f"{found.flops_ratio:.2f}"),
        ("seconds per step", "not tried" if found.step_seconds is None else f"{found.step_seconds:.3f}"),
        ("seconds from start to end", f"{sum(found.phases.values()):.1f}"),
        *((f"seconds: {PHASES[name]}", f"{seconds:.1f}") for name, seconds in found.phases.items() if seconds >= 0.05),
        *((f"memory: {name}", "not tried" if value is None else in_words(value)) for name, value in parts.items()),
    ]
    lines = [f"{name:36} {value}" for name, value in rows]
    lines.append(found.sentence)
    if found.offer is not None:
        lines.append(f"What would fit: {found.offer.words}. {found.offer.forecast.sentence}")
    elif found.fits is False:
        lines.append("Nothing smaller is left that would fit; take a smaller model.")
    return lines
