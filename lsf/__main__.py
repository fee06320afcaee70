"""`python -m lsf`: the command line."""

import sys

try:
    from lsf.cli.main import main
except KeyboardInterrupt:  # the imports take a second
    sys.stderr.write("lsf: interrupted.\n")
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
