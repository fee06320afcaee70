"""What the process that children are forked off imports, once; its children start with it."""

import gc

gc.disable()  # imports take a quarter less

import lsf.cli.main  # noqa: E402
import lsf.lens.analyze  # noqa: E402
import lsf.training.run  # noqa: E402, F401

gc.collect()
gc.freeze()
gc.enable()
