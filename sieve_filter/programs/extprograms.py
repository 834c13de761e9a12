"""What Pigeonhole's extprograms plugin starts, one function for each directory of programs.

Anybody who can upload a Sieve script chooses the filter's arguments. So only the options of `arguments.add_options` are
there, and a configuration file must belong to root, or to whoever installed this program.
"""

import gc
import os
import sys
from collections.abc import Callable, Iterable, Sequence

from sieve_filter.delivery.encrypt import Delivery
from sieve_filter.delivery.incoming import Incoming
from sieve_filter.errors import UsageError
from sieve_filter.policy.settings import Options
from sieve_filter.programs import once
from sieve_filter.system import privileges, stdio


def filter_main(config_file: str, register: str = "") -> int:
    """`filter "cryptomail" [OPTION...]`: the message in, the message to store out. Returns an exit code."""
    return stdio.guarded(lambda: _run(sys.argv[1:], config_file, once.pass_on, register))


def execute_main(config_file: str, socket_path: str, register: str = "", dovecot_conf: str = "") -> int:
    """`execute :pipe :output "verdict" "cryptomail" ["seal", OPTION...]`: the message in, a verdict out.

    `socket_path` is the LMTP service that takes encrypted messages; `dovecot_conf`: see `again`. Returns an exit code.
    """
    return stdio.guarded(lambda: _seal(config_file, socket_path, register, dovecot_conf))


def _seal(config_file: str, socket_path: str, register: str, dovecot_conf: str) -> int:
    if sys.argv[1:2] != ["seal"]:
        raise UsageError("the only command here is: seal")
    finish, watch = once.seal(socket_path, os.environ, dovecot_conf)
    return _run(sys.argv[2:], config_file, finish, register, watch)


def _run(
    arguments: Sequence[str],
    config_file: str,
    finish: Callable[[Delivery], Iterable[bytes]],
    register: str,
    watch: Callable[[Incoming], Incoming] = lambda incoming: incoming,
) -> int:
    privileges.drop()
    gc.disable()  # the process ends with its one message
    trusted_owners = frozenset({0, os.stat(__file__).st_uid})
    return once.run(_options(arguments), os.environ, config_file, finish, trusted_owners, register, watch)


def _options(arguments: Sequence[str]) -> Options:
    if not arguments:
        return Options()
    from sieve_filter.policy import arguments as options  # the global script gives none

    return options.parse(arguments)
