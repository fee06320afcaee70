"""peft's configuration of LoRA on linear maps, which refuses models where peft would adapt experts in their place."""

from typing import Any

from peft import LoraConfig

from lsf.errors import PlanError


class LinearLora(LoraConfig):
    """A `peft.LoraConfig` that adapts linear maps alone.

    peft learns at the model itself whether `gate_proj` is a map, or was once the name of experts' parameters, and puts
    the latter into `target_parameters`. That is refused unless they were asked for when it was made.

    Raises:
        PlanError: a model in which only some blocks have experts, when peft is given it.
    """

    def __init__(self, **fields: Any) -> None:
        """Take peft's fields, by name."""
        super().__init__(**fields)
        self._asked = frozenset(self.target_parameters or ())

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse parameters that were not asked for."""
        asked = self.__dict__.get("_asked")
        if name == "target_parameters" and asked is not None and (more := sorted(set(value or ()) - asked)):
            raise PlanError(
                f"LoRA would adapt experts ({', '.join(more)}) in all blocks: peft takes gate_proj, up_proj and "
                "down_proj of plain blocks for theirs; plan blocks of experts alone, or leave these maps out of "
                "target_modules."
            )
        super().__setattr__(name, value)
