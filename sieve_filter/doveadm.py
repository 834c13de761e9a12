"""Asks Dovecot, by its command doveadm, who its users are and where their homes are."""

import subprocess

from sieve_filter.errors import UnknownUserError

_SECONDS = 60
_NO_SUCH_USER = 67  # EX_NOUSER: what doveadm ends with then


def home_of(user: str) -> str:
    """The home directory of `user`. Raises UnknownUserError."""
    if set("*?") & set(user):  # doveadm would take it for a mask, and name other people's homes
        raise UnknownUserError(f"there can be no user {user}")
    home = _ask(["user", "-f", "home", "--", user], user).removesuffix("\n")
    if not home.startswith("/") or "\n" in home:
        raise UnknownUserError(f"Dovecot knows no home of {user}: mend its userdb, or use --home-template")
    return home


def users() -> list[str]:
    """All users. Raises UnknownUserError where Dovecot cannot tell, which not every userdb can."""
    return _ask(["user", "*"], "anybody").splitlines()


def _ask(arguments: list[str], whom: str) -> str:
    try:
        done = subprocess.run(["doveadm", *arguments], capture_output=True, timeout=_SECONDS, check=False)
    except FileNotFoundError:
        raise UnknownUserError("there is no program doveadm: say where homes are with --home-template") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnknownUserError(f"cannot ask doveadm about {whom}: {error}") from error
    if done.returncode == _NO_SUCH_USER:
        raise UnknownUserError(f"Dovecot has no user {whom}")
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it did not say why"]
        raise UnknownUserError(f"doveadm cannot tell about {whom}: {said[-1]}; is Dovecot up? Or use --home-template")
    return done.stdout.decode("utf-8", "replace")
