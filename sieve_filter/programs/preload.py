"""Loads all that a message may need before the first one comes.

Processes that are forked then share it. And they can go on until they are replaced, though an upgrade of a package has
taken away the files that they were started from: what is loaded late would not be there any more.
"""

from importlib import import_module

from sieve_filter.openpgp import armor_writer
from sieve_filter.sequoia import engine

# What is imported where it is needed, because an executed filter would have to load it for each message.
_LATE = (
    "delivery.again",
    "delivery.sealing",
    "delivery.sequoia",
    "delivery.smime",
    "detection.stream",
    "dovecot.doveadm",
    "dovecot.lmtp",
    "gpg.keybox",
    "gpg.trustdb",
    "keys.beside",
    "keys.newer",
    "keys.script_key",
    "keys.x509",
    "mail.lenient",
    "openpgp.certificate",
    "openpgp.newer",
    "openpgp.wkd",
    "policy.arguments",
    "smime.cms",
    "smime.recipients",
    "system.places",
)


def load() -> None:
    for name in _LATE:
        import_module(f"sieve_filter.{name}")
    armor_writer.load()
    if engine.installed():
        import_module("pysequoia")
