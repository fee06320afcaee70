"""How long a run will take by phase: FLOPs of everything it does, times the speed measured on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lsf.analysis.cost import Load, Sizes, Speed, backward_flops, forward_flops
