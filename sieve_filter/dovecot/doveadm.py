"""Asks Dovecot, by its commands doveadm and doveconf, who its users are, and where their homes are.

doveadm is asked about many users at a time: one process for each would take longer than all that is done with a key.
"""

import grp
import json
import pwd
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple, cast

from sieve_filter.errors import UnknownUserError

_SECONDS = 60
_SECONDS_TO_END = 5
_SECONDS_TO_PURGE = 3600
_NO_SUCH_USER = 67  # EX_NOUSER: what doveadm ends with then
# For a process that Dovecot has started: what Dovecot says to it in its environment would lead doveadm astray.
_OUTSIDE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_NO_UID = 0xFFFFFFFF  # -1, which no user can have


class Account(NamedTuple):
    """A user as Dovecot would deliver to: the system's user ID and group ID (None where that is not said), the home."""

    user: str
    uid: int | None
    gid: int | None
    home: str


def accounts(names: Sequence[str]) -> dict[str, Account | UnknownUserError]:
    """What Dovecot knows of each of these users, or why nothing."""
    asked = list(dict.fromkeys(name for name in names if not set("*?") & set(name)))
    masks = set(names) - set(asked)  # doveadm would name other people's homes
    return _ask(asked) | {name: UnknownUserError(f"there can be no user {name}") for name in masks}


def users() -> list[str]:
    """All users. Raises UnknownUserError where Dovecot cannot tell, which not every userdb can."""
    done = _run(["doveadm", "user", "*"], "anybody")
    if done.returncode != 0:
        raise _refusal(done, "anybody")
    return _lines(done.stdout)


@contextmanager
def imap_session(user: str, seconds: float, configuration: str = "") -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """What an IMAP session of `user` says, and what it is told: with that user's rights, and without a password.

    Raises UnknownUserError where it cannot be started. After so many seconds it is over, whatever state it is in.
    `configuration` is the file of Dovecot's; it is named where Dovecot has started this process.
    """
    command = ["timeout", f"--kill-after={_SECONDS_TO_END}", str(seconds), "doveadm"]
    command += [*(["-c", configuration] if configuration else []), "exec", "imap", "-u", user]
    environment = _OUTSIDE if configuration else None
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
    except OSError as error:
        raise UnknownUserError(f"cannot start doveadm: {error.strerror}") from error
    responses, commands = cast(IO[bytes], process.stdout), cast(IO[bytes], process.stdin)
    try:
        yield responses, commands
    finally:
        with suppress(OSError):
            commands.close()  # which ends the session
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
        responses.close()


def saved_lately(names: Sequence[str], folder: str, days: int, seconds: float) -> tuple[list[str], str]:
    """Those of the users in whose folder of that name, whatever its prefix, something was saved in so many days.

    Returns also why others are not known, if that is so. Raises UnknownUserError where none are.
    """
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("".join(f"{name}\n" for name in names))
        file.flush()
        query = ["mailbox", f"*{folder}", "savedsince", f"{days}days"]
        done = _run(["doveadm", "search", "-F", file.name, *query], f"{len(names)} users", seconds)
    found = {line.rsplit(" ", 2)[0] for line in _lines(done.stdout)}
    said = _lines(done.stderr) or ["it did not say why"]
    return [name for name in names if name in found], said[-1] if done.returncode else ""


def valid_uids() -> range:
    """The user IDs that Dovecot delivers to; all where it does not say."""
    try:
        done = _run(["doveconf", "first_valid_uid", "last_valid_uid"], "its settings")
        first, last = (int(line.rpartition("=")[2]) for line in _lines(done.stdout))
    except (UnknownUserError, ValueError):
        return range(_NO_UID)
    return range(first, last + 1 if last else _NO_UID)


def purge(user: str, folders: Sequence[str], configuration: str) -> None:
    """Take away what Dovecot keeps of messages that were removed from those folders: in caches, and in files of mdbox.

    Raises UnknownUserError where it does not.
    """
    chosen = ["-c", configuration] if configuration else []
    commands = [["mailbox", "cache", "purge", "-u", user, "--", *folders], ["purge", "-u", user]]
    for command in commands:
        done = _run(["doveadm", *chosen, *command], user, _SECONDS_TO_PURGE, _OUTSIDE if configuration else None)
        if done.returncode != 0:
            said = _lines(done.stderr) or ["it did not say why"]
            raise UnknownUserError(f"doveadm {command[0]} for {user} failed: {said[-1]}")


def _ask(names: Sequence[str]) -> dict[str, Account | UnknownUserError]:
    """As `accounts`, of names that are no masks and different.

    doveadm writes the answers one behind the other, without names. Whose each is can be told where there is one for
    everybody; else each half is asked for again.
    """
    if not names:
        return {}
    try:
        done = _run(["doveadm", "user", "--", *names], names[0])
    except UnknownUserError as error:
        return dict.fromkeys(names, error)
    said = _said(done)
    absent = [name for name in names if any(line.endswith(f": user {name} doesn't exist") for line in said)]
    there = [name for name in names if name not in absent]
    fields = [line.split("\t", 1) for line in _lines(done.stdout) if "\t" in line]
    uids, gids, homes = ([value for name, value in fields if name == field] for field in ("uid", "gid", "home"))
    if len(there) == len(uids) == len(gids) == len(homes):
        found: dict[str, Account | UnknownUserError] = {
            name: UnknownUserError(f"Dovecot has no user {name}") for name in absent
        }
        return found | {one[0]: _account(*one) for one in zip(there, uids, gids, homes, strict=True)}
    if len(names) > 1:
        middle = len(names) // 2
        return _ask(names[:middle]) | _ask(names[middle:])
    return {names[0]: _refusal(done, names[0])}


def _account(name: str, uid: str, gid: str, home: str) -> Account | UnknownUserError:
    if not home.startswith("/"):
        return _homeless(name)
    try:  # mail_uid and mail_gid may be names
        user_id = int(uid) if uid.isdecimal() else pwd.getpwnam(uid).pw_uid
        group_id = int(gid) if gid.isdecimal() else grp.getgrnam(gid).gr_gid
    except KeyError:
        return Account(name, None, None, home)
    return Account(name, user_id, group_id, home)


def _refusal(done: "subprocess.CompletedProcess[bytes]", whom: str) -> UnknownUserError:
    if done.returncode == 0:
        return _homeless(whom)
    if done.returncode == _NO_SUCH_USER:
        return UnknownUserError(f"Dovecot has no user {whom}")
    said = _said(done) or ["it did not say why"]
    return UnknownUserError(f"doveadm cannot tell about {whom}: {said[-1]}; is Dovecot up? Or use --home-template")


def _said(done: "subprocess.CompletedProcess[bytes]") -> list[str]:
    """What doveadm says besides answers: some on standard output, some on standard error."""
    return [line for line in _lines(done.stdout + done.stderr) if "\t" not in line]


def _homeless(name: str) -> UnknownUserError:
    return UnknownUserError(f"Dovecot knows no home of {name}: mend its userdb, or use --home-template")


def _run(
    command: Sequence[str], whom: str, seconds: float = _SECONDS, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    name = command[0]
    try:
        return subprocess.run(command, capture_output=True, timeout=seconds, check=False, env=environment)
    except FileNotFoundError:
        raise UnknownUserError(f"there is no program {name}: say where homes are with --home-template") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnknownUserError(f"cannot ask {name} about {whom}: {error}") from error


def _lines(output: bytes) -> list[str]:
    return [line for line in output.decode("utf-8", "replace").split("\n") if line.strip()]


def settings_of(protocol: str, configuration: str, names: Sequence[str]) -> str:
    """What doveconf says of settings as processes for that protocol (lmtp, imap) have them; those of the installed
    Dovecot where no `configuration` is named. Raises UnknownUserError where it cannot.
    """
    chosen = ["-c", configuration] if configuration else []
    done = _run(["doveconf", *chosen, "-f", f"protocol={protocol}", *names], f"its settings for {protocol}")
    if done.returncode != 0:
        raise UnknownUserError(f"doveconf: {(_lines(done.stderr) or ['it did not say why'])[-1]}")
    return done.stdout.decode("utf-8", "replace")


def index_directory(user: str, configuration: str) -> str:
    """Where Dovecot has the index of that user's INBOX; empty where it does not say."""
    chosen = ["-c", configuration] if configuration else []
    try:
        done = _run(["doveadm", *chosen, "mailbox", "path", "-u", user, "-t", "index", "INBOX"], user)
    except UnknownUserError:
        return ""
    return done.stdout.decode("utf-8", "surrogateescape").strip() if done.returncode == 0 else ""


def compile_script(script: str, configuration: str) -> bytes | None:
    """What sievec makes of that Sieve script, by the settings in `configuration`; None where it refuses.

    Raises UnknownUserError where there is no sievec.
    """
    with tempfile.TemporaryDirectory() as directory:
        binary = Path(directory, "script.svbin")
        done = _run(["sievec", "-c", configuration, script, str(binary)], script)
        return binary.read_bytes() if done.returncode == 0 and binary.exists() else None


def version() -> str:
    """Dovecot's version, as 2.3.19.1. Raises UnknownUserError where there is none."""
    return (_lines(_run(["dovecot", "--version"], "its version").stdout) or [""])[0].split(" ")[0]


def search(user: str, message_id: str, configuration: str) -> list[bytes]:
    """The messages of that user with that Message-ID, in whatever folder, with LF for line ends.

    Raises UnknownUserError where doveadm cannot tell.
    """
    query = ["mailbox", "*", "header", "message-id", message_id]
    done = _run(["doveadm", "-c", configuration, "-f", "json", "fetch", "-u", user, "text", *query], user)
    if done.returncode != 0:
        raise _refusal(done, user)
    return [one["text"].encode("utf-8", "replace") for one in json.loads(done.stdout or b"[]")]


def expunge(user: str, message_id: str, configuration: str) -> None:
    """Remove the messages of that user with that Message-ID. Raises UnknownUserError where that cannot be done."""
    query = ["mailbox", "*", "header", "message-id", message_id]
    done = _run(["doveadm", "-c", configuration, "expunge", "-u", user, *query], user)
    if done.returncode != 0:
        raise _refusal(done, user)
