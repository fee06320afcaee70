"""`python -m lsf` with accelerate told that CPU processes may shard; started by test_processes.py.

accelerate turns FSDP on for GPUs only. torch's FSDP2 itself runs on CPUs over gloo, so this shows the real sharding
where no GPU is at hand. With `REFUSED_FIRST` in the environment the command is first carried out without being told so.
"""

import os
import sys

from accelerate import PartialState
from accelerate.utils import DistributedType

from lsf.cli.main import main

plain = PartialState.__init__


def shardable(self, *given, **named):
    plain(self, *given, **named)
    if self.distributed_type is DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


if __name__ == "__main__":
    if "REFUSED_FIRST" in os.environ and main() != 2:
        sys.exit("FSDP on CPUs was not refused")
    PartialState.__init__ = shardable
    sys.exit(main())
