"""What Pigeonhole's extprograms plugin starts, one function for each directory of programs.

Anybody who can upload a Sieve script chooses the filter's arguments. So only the options of `job.add_options` are
there, and a configuration file must belong to root, or to whoever installed this program.
"""

import argparse
import gc
import os
import sys
from collections.abc import Callable, Iterable

from sieve_filter import execmode, job
from sieve_filter.delivery import Delivery


def filter_main(config_file: str) -> int:
    """`filter "cryptomail" [OPTION...]`: the message in, the message to store out. Returns an exit code."""
    parser = job.Parser(prog="cryptomail", description="Encrypts one message.")
    job.add_options(parser)
    return execmode.guarded(lambda: _run(parser.parse_args(sys.argv[1:]), config_file, execmode.pass_on))


def execute_main(config_file: str, socket_path: str) -> int:
    """`execute :pipe :output "verdict" "cryptomail" ["seal", OPTION...]`: the message in, a verdict out.

    `socket_path` is the LMTP service that takes encrypted messages. Returns an exit code.
    """
    parser = job.Parser(prog="cryptomail", description="Encrypts one message, and delivers it.")
    seal = parser.add_subparsers(required=True, metavar="COMMAND").add_parser("seal")
    job.add_options(seal)
    finish = execmode.seal(socket_path, os.environ)
    return execmode.guarded(lambda: _run(parser.parse_args(sys.argv[1:]), config_file, finish))


def drop_privileges() -> None:
    """Give up for good what Dovecot gave up for a while: its 2.4 starts programs with root as their real user ID."""
    group, user = os.getegid(), os.geteuid()
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)


def _run(options: argparse.Namespace, config_file: str, finish: Callable[[Delivery], Iterable[bytes]]) -> int:
    drop_privileges()
    gc.disable()  # the process ends with its one message
    trusted_owners = frozenset({0, os.stat(__file__).st_uid})
    return execmode.run(options, os.environ, config_file, finish, trusted_owners)
