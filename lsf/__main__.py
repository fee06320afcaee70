"""`python -m lsf`: the command line."""

import sys

from lsf.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
