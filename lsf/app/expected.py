"""What a plan is expected to cost: as it was counted, or as the page Fine-tune forecast it, by its method."""

from lsf.app.state import Session, source_here
from lsf.app.work import Foreseen, source_of
from lsf.methods.catalogue import CATALOGUE
from lsf.plans.plan import Plan, Predicted


def foreseen_of(here: Session, plan: Plan) -> Foreseen | None:
    """Return what was forecast of a plan on the model and data being looked at; None where that was not done."""
    foreseen = here.foreseen
    if foreseen is None or foreseen.choice is None or foreseen.spec.plan.label != plan.label:
        return None
    return foreseen if source_of(foreseen.spec) == source_here(here) else None


def predicted_of(here: Session, plan: Plan) -> tuple[Predicted, Predicted | None]:
    """Return what a plan is expected to cost, and full fine-tuning beside it: as the next page forecast it, if it did.

    Where this plan was not forecast on this model and data, what was counted for it, and None.
    """
    foreseen = foreseen_of(here, plan)
    if foreseen is None or foreseen.choice is None:
        return plan.predicted, None
    return foreseen.choice.predicted, None if foreseen.full is None else foreseen.full.predicted


def by_method(here: Session, plan: Plan) -> str:
    """Return by which method that is, as words after a number; nothing where all weights of the blocks are tuned."""
    foreseen = foreseen_of(here, plan)
    if foreseen is None or foreseen.spec.method == "full":
        return ""
    return f" by {CATALOGUE[foreseen.spec.method].label}"
