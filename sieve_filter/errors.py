"""Every way in which cryptomail gives up, each with its exit code of sysexits(3). No error carries message text."""

import os
import re


class CryptomailError(Exception):
    """The root. `str(error)` is one line: what happened and what to do about it; `code` the exit code."""

    code = os.EX_SOFTWARE


class UsageError(CryptomailError):
    """The command line or the environment asks for something that cannot be."""

    code = os.EX_USAGE


class ConfigError(CryptomailError):
    """The configuration file is unreadable, or says something that cannot be."""

    code = os.EX_CONFIG


class RefusedError(CryptomailError):
    """The message cannot be encrypted now; nothing was written, and the sending server is to try again later."""

    code = os.EX_TEMPFAIL


class NoKeyError(RefusedError):
    """The owner has no key, and a key is required."""


class UnusableKeyError(RefusedError):
    """The owner has keys, but none that may be encrypted to."""


class ExpiredKeyError(UnusableKeyError):
    """The owner has keys of which nothing is wrong but their age."""


class KeyringError(RefusedError):
    """A keyring is there but cannot be read."""


class LostKeyringError(RefusedError):
    """The owner's mail is encrypted, as is noted elsewhere, and there is no keyring any more."""


class RegisterError(RefusedError):
    """It cannot be known whose mail is encrypted."""


class EncryptionError(RefusedError):
    """GnuPG failed, or what it wrote is not the ciphertext that was asked for."""


class SpoolError(RefusedError):
    """There is no room for a large message, or for its ciphertext."""


class DeliveryError(RefusedError):
    """Dovecot does not take the encrypted message."""


class UncertainError(CryptomailError):
    """The encrypted message was handed to Dovecot, and it is not known whether it is stored, or who asked cannot be
    told: it will come again, and may be there twice then.
    """

    code = os.EX_TEMPFAIL


class TooLargeError(RefusedError):
    """The message is larger than the administrator's limit."""


class TimedOutError(RefusedError):
    """The time for one message is over."""


class NoMemoryError(RefusedError):
    """There is not enough memory."""


class InternalError(CryptomailError):
    """Something happened that nobody foresaw."""


class DecryptionError(CryptomailError):
    """The caller's GnuPG cannot decrypt the message, or it was damaged after cryptomail wrote it."""

    code = os.EX_DATAERR


class FileError(CryptomailError):
    """A file, standard input or standard output cannot be read or written."""

    code = os.EX_IOERR


class RefusedKeyError(CryptomailError):
    """A key cannot be set up: it is none, or a secret one, or nobody could encrypt to it. Or it is not there."""

    code = os.EX_DATAERR


class UnknownUserError(CryptomailError):
    """There is no such mailbox owner, or nobody knows where their home directory is."""

    code = os.EX_NOUSER


class PlaceError(CryptomailError):
    """A keyring cannot be written: its place does not exist, or belongs to somebody else."""

    code = os.EX_CANTCREAT


class ScriptError(CryptomailError):
    """An owner's Sieve script cannot be read, or not be changed without damage."""

    code = os.EX_DATAERR


class ServiceError(CryptomailError):
    """A server on the network cannot be reached, cannot be trusted, or refuses."""

    code = os.EX_UNAVAILABLE


class ImapRefusalError(ServiceError):
    """An IMAP server says no to a command; `response_code` says why, if it does (RFC 9051 section 7.1)."""

    def __init__(self, text: str, response_code: str = "") -> None:
        super().__init__(text)
        self.response_code = response_code


class NoSuchHostError(ServiceError):
    """There is no host of that name."""


class LoginError(CryptomailError):
    """A server does not take the name and password."""

    code = os.EX_NOPERM


class BusyError(CryptomailError):
    """Somebody else is at the same work."""

    code = os.EX_TEMPFAIL


class QuotaError(CryptomailError):
    """A mailbox has no room for a message beside the one that it is to replace."""

    code = os.EX_CANTCREAT


class LeftError(CryptomailError):
    """Not all was done: some messages were left as they are."""

    code = os.EX_PROTOCOL


class StoppedError(CryptomailError):
    """The command was stopped by a signal, or a step of it took too long."""

    code = os.EX_TEMPFAIL


def known(error: Exception) -> CryptomailError:
    """An error that can be reported: the text of an unforeseen one may quote the message, so only its place is told."""
    if isinstance(error, CryptomailError):
        return error
    if isinstance(error, MemoryError):
        return NoMemoryError("there is not enough memory")
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace is not None else "?"
    return InternalError(f"internal error: {type(error).__name__} at {place}; please report it")


def name(kind: type[CryptomailError]) -> str:
    """What logs and counts call errors of that kind: `no-key` for NoKeyError."""
    return re.sub("(?<!^)(?=[A-Z])", "-", kind.__name__.removesuffix("Error")).lower()


def line(error: CryptomailError) -> str:
    """What a log says about `error`, which befell a message."""
    return str(error) + ("; nothing was stored, try again later" if isinstance(error, RefusedError) else "")
