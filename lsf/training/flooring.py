"""What a run has to beat, and what it cannot do without validation readings."""

from lsf.data.prior import Floor, completion_ids, floor_of, prior_of
from lsf.errors import BadInputError, DataError
from lsf.jobs.result import Metrics
from lsf.jobs.spec import RunSpec
from lsf.training.material import Material
from lsf.training.processes import n_processes


def floor_on(material: Material, base: Metrics, vocabulary: int) -> Floor | None:
    """Return the floor on the test rows; None where there are none.

    Args:
        material: rows; the training rows that fit make the prior.
        base: the base model's metrics on the test rows.
        vocabulary: V of the model.
    """
    if base.loss is None or base.exact_match is None:
        return None
    prior = prior_of(completion_ids(material.train), completion_ids(material.test), vocabulary)
    return floor_of(prior, base.loss, base.exact_match)


def refuse_without_readings(spec: RunSpec, material: Material) -> None:
    """Refuse what goes by validation readings where none can be made, or where processes could disagree on them.

    Raises:
        DataError: the task has no validation examples.
        BadInputError: several processes share the run.
    """
    asked = [
        words
        for words, given in (("--until flat", spec.until == "flat"), ("--keep best", spec.keep == "best"))
        if given
    ]
    if asked and not material.validation:
        raise DataError(f"{asked[0]} needs validation examples and the data has none; leave it out.")
    if asked and n_processes() > 1:
        raise BadInputError(f"{asked[0]} is not possible in several processes; leave it out.")
