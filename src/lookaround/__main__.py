"""`python -m lookaround` is the `lookaround` command."""

import sys

from lookaround.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
