"""What Pigeonhole's extprograms plugin starts: `cryptomail filter`, and nothing else of cryptomail.

Anybody who can upload a Sieve script chooses its arguments. So only the options of `execmode.add_options` are there,
and a configuration file must belong to root, or to whoever installed this program.
"""

import gc
import os
import sys
from pathlib import Path

from sieve_filter import execmode


def main(config_file: str) -> int:
    """Filter standard input to standard output; `config_file` is the installed configuration. Returns an exit code."""
    gc.disable()  # the process ends with its one message
    return execmode.guarded(lambda: _main(config_file))


def _main(config_file: str) -> int:
    parser = execmode.Parser(prog="cryptomail", description="Encrypts one message.")
    execmode.add_options(parser)
    options = parser.parse_args(sys.argv[1:])
    return execmode.run(options, os.environ, config_file, frozenset({0, Path(__file__).stat().st_uid}))
