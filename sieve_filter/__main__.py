"""`python -m sieve_filter` is the command `cryptomail`."""

import sys

from sieve_filter.cli import main

sys.exit(main())
