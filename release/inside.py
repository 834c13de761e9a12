"""What `release.trial` does in the tree of a release, as root, with its python3.

/trial has the packages 1.deb and 2.deb, the later one, and debian/tests/deliver.
"""

import importlib.machinery
import importlib.util
import os
import secrets
import shutil
import smtplib
import subprocess
import threading
import time
from hashlib import sha256
from pathlib import Path
from types import ModuleType

# As systemd starts what is in our units, as far as that can be had without systemd.
_CONFINED = (
    "unshare --net setpriv --no-new-privs"
    " --bounding-set=-all,+chown,+dac_override,+dac_read_search,+fowner,+kill,+setgid,+setuid"
)
# What apt, dpkg and the trial itself write.
_PASSED_OVER = (
    *("/proc", "/sys", "/dev", "/tmp", "/trial", "/run", "/root", "/var/cache", "/var/log", "/var/tmp"),
    *("/var/lib/apt", "/var/lib/dpkg", "/etc/ld.so.cache"),
)
_LOG = "/trial/dovecot.log"
INTERVAL_SECONDS = 0.02


def load(file: str) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("deliver", file)
    specification = importlib.util.spec_from_loader("deliver", loader)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    loader.exec_module(module)
    return module


mail = load("/trial/deliver")


def sh(command: str) -> str:
    """Returns what it says."""
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command}: {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


def files() -> dict[str, str]:
    """All files and directories, with what tells a change."""
    found = {}
    for directory, inside, names in os.walk("/"):
        here = Path(directory)
        inside[:] = [one for one in inside if not str(here / one).startswith(_PASSED_OVER)]
        for path in (here / one for one in [*inside, *names]):
            if str(path).startswith(_PASSED_OVER) or "__pycache__" in path.parts:
                continue
            status = path.lstat()
            text = str(path.readlink()) if path.is_symlink() else ""
            text = sha256(path.read_bytes()).hexdigest() if not text and path.is_file() else text
            found[str(path)] = f"{status.st_mode:o} {status.st_uid} {status.st_gid} {text}"
    return found


def difference(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [
        f"{'+' if path not in before else '-' if path not in after else '!'} {path}"
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    ]


def of(owner: object) -> list[str]:
    """The files of an owner's: mail and keys."""
    name = owner.name  # type: ignore[attr-defined]
    return sorted(path for path in files() if path.startswith(f"/home/{name}") or path == f"/var/mail/{name}")


def depends(package: str) -> str:
    """The packages that it needs or recommends, without versions."""
    fields = [sh(f"dpkg-deb --field {package} {field}") for field in ("Depends", "Recommends")]
    names = [one.split("|")[0].split("(")[0].strip() for one in ",".join(fields).split(",")]
    return " ".join(filter(None, names))


def main() -> None:
    sh(f"apt-get -qq install -y {depends('/trial/1.deb')}")
    Path("/etc/dovecot/local.conf").write_text(f"log_path = {_LOG}\n")
    mail.start_dovecot("unshare", "--net", "dovecot")  # its ports are nobody's business
    before = files()

    began = time.monotonic()
    said = sh("apt-get install -y /trial/1.deb")
    print("\n".join(said.splitlines()[-14:]))
    sh("doveadm reload")
    time.sleep(2)
    owner = mail.Owner("alice")
    owner.give_key()
    word = f"canary-{secrets.token_hex(12)}"
    mail.deliver(owner, mail.message(word))
    [stored] = owner.stored()
    mail.check_encrypted(owner, stored, word)
    print(f"installed, and the first message encrypted, after {time.monotonic() - began:.1f} s")
    print(sh("cryptomail --version; cryptomail doctor || true"))

    upgrade(owner)
    print(sh(f"{_CONFINED} cryptomail keys sweep --all; {_CONFINED} cryptomail mailbox encrypt --all"))
    again(owner)
    purge(owner, before)


def upgrade(owner: object) -> None:
    """With messages in flight."""
    word = f"canary-{secrets.token_hex(12)}"
    taken: list[int] = []
    refused: list[Exception] = []
    cut: list[Exception] = []
    over = threading.Event()

    def send() -> None:
        while not over.wait(INTERVAL_SECONDS):
            try:
                mail.deliver(owner, mail.message(word))
                taken.append(1)
            except smtplib.SMTPException as error:
                (refused if "451" in str(error) else cut).append(error)
            except OSError as error:  # no socket, or a connection that ends: Dovecot is just being reloaded
                cut.append(error)

    count = len(owner.stored())  # type: ignore[attr-defined]
    senders = [threading.Thread(target=send) for _ in range(3)]
    for one in senders:
        one.start()
    time.sleep(2)
    for package in ("2.deb", "2.deb"):
        said = sh(f"dpkg -i /trial/{package}")
        time.sleep(2)
    time.sleep(2)
    over.set()
    for one in senders:
        one.join()
    print("\n".join(said.splitlines()[-6:]))
    stored = owner.stored()[count:]  # type: ignore[attr-defined]
    clear = [one for one in stored if word.encode() in one]
    print(
        f"upgraded twice under load: {len(taken)} taken, {len(stored)} stored, {len(clear)} in clear,"
        f" {len(refused)} refused for the moment, {len(cut)} cut off by the reload"
    )
    assert not clear
    assert len(taken) <= len(stored) <= len(taken) + len(cut)
    log = Path(_LOG).read_text()
    assert "internal error" not in log, log[-20_000:]
    mail.check_encrypted(owner, stored[-1], word)
    left = sh("ls -d /usr/lib/cryptomail/venv-*").split()
    assert len(left) == 1, left


def again(owner: object) -> None:
    """Removed and installed again: keys are where they were, and mail is encrypted."""
    sh("apt-get remove -y cryptomail")
    sh("doveconf -n > /dev/null; doveadm reload")
    assert not Path("/etc/dovecot/conf.d/99-cryptomail.conf").exists()
    sh("apt-get install -y /trial/2.deb; doveadm reload")
    time.sleep(2)
    word = f"canary-{secrets.token_hex(12)}"
    mail.deliver(owner, mail.message(word))
    mail.check_encrypted(owner, owner.stored()[-1], word)  # type: ignore[attr-defined]
    print("removed and installed again: the next message is encrypted")


def purge(owner: object, before: dict[str, str]) -> None:
    theirs = of(owner)
    kept = {path: text for path, text in files().items() if path in theirs}
    assert len(kept) > 3, kept
    sh("apt-get purge -y cryptomail; doveconf -n > /dev/null; doveadm reload")
    after = files()
    assert {path: after.get(path) for path in kept} == kept, "mail or keys were touched"
    sh("userdel alice")
    shutil.rmtree("/home/alice")
    Path("/var/mail/alice").unlink()
    accounts = [
        f"/etc/{name}{end}"
        for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
        for end in ("", "-")
    ]
    left = [one for one in difference(before, files()) if one[2:] not in accounts]
    assert left == [], "\n".join(left)
    print(f"purged: nothing is left, and {len(kept)} files of mail and keys are as they were")


main()
