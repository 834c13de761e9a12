"""Reads options and command lines. Deliveries without options do without, for argparse takes long to load."""

import argparse
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NoReturn

from sieve_filter.errors import UsageError
from sieve_filter.mail.header_policy import POLICIES
from sieve_filter.policy.settings import ENCRYPT_ANYWAY, REFUSE, STORE_PLAIN, Options


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)  # asking the terminal would load shutil, at each delivery


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line as every other error is reported, instead of printing the usage and exiting."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **settings)

    def parse_known_args(  # type: ignore[override]  # it is overloaded
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse's, but what a subcommand does not know is reported with the help of that subcommand."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def parse(arguments: Sequence[str]) -> Options:
    """The options that a Sieve script gives. Raises UsageError."""
    return chosen(_parser().parse_args(arguments))


def chosen(parsed: argparse.Namespace) -> Options:
    """The options, where `add_options` is only a part of what was parsed."""
    return Options(**{name: getattr(parsed, name) for name in Options._fields})


@lru_cache(maxsize=1)
def _parser() -> Parser:
    parser = Parser(prog="cryptomail filter", add_help=False)  # --help would end a worker
    add_options(parser)
    return parser


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that a Sieve script may give."""
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="FPR|ADDRESS",
        help="encrypt to this key from the owner's keyrings, and no other; exact match; may be repeated",
    )
    parser.add_argument(
        "--keydata",
        nargs="+",
        default=[],
        metavar="BASE64",
        help="encrypt to this key, and to none in a keyring; may be cut into several pieces",
    )
    parser.add_argument("--require", action="store_true", help="fail when the owner has no key")
    parser.add_argument(
        "--on-expired", choices=(ENCRYPT_ANYWAY, REFUSE, STORE_PLAIN), help="what to do when every key has expired"
    )
    parser.add_argument("--header-policy", choices=list(POLICIES), help="which header fields stay readable")
    parser.add_argument("--config", metavar="FILE", help="settings to use instead of the installed ones")
