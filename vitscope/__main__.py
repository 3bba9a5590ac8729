"""`python -m vitscope`, and the start of the `vitscope` command."""

from __future__ import annotations

import sys

from vitscope.cli import main

if __name__ == "__main__":
    sys.exit(main())
