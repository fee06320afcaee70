"""The tuning methods: what each does to a model, what it saves, and whether it can be merged."""

from lsf.training.methods.places import planned_names
from lsf.training.methods.registry import METHODS, Method
from lsf.training.methods.scene import Scene, scene_of

__all__ = ["METHODS", "Method", "Scene", "planned_names", "scene_of"]
