"""`python -m sieve_filter` is the command `cryptomail`."""

import sys

from sieve_filter.cli.main import main

sys.exit(main())
