"""The runtime type checker of the tests: beartype, with ints where floats are expected, as pyright has it."""

from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
