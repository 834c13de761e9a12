"""What root does in owners' folders, while owners exchange them."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab.keys import Owner
from sieve_filter.errors import CryptomailError, PlaceError
from sieve_filter.keys import changes
from sieve_filter.keys.changes import Order, Verdicts
from sieve_filter.keys.outcome import Outcome, Status
from sieve_filter.openpgp import certificate
from sieve_filter.system import places, pool
from sieve_filter.system.pool import Identity
from tests.faults.table import LONG
from tests.support.server import ALICE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users")

# Two system users that every Debian has; they stand for people.
GAMES, NEWS = 5, 9

_SECONDS = 60 if LONG in os.environ else 5

_CWD, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE


def exchange(one: Path, other: Path) -> None:
    """Exchange two entries in one step (renameat2(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_CWD, bytes(one), _CWD, bytes(other), _EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


@contextmanager
def exchanging(one: Path, other: Path, owner: int) -> Iterator[None]:
    """A process of `owner` that exchanges the two all the time."""
    process = os.fork()
    if process == 0:
        try:
            os.setgroups([])
            os.setresgid(owner, owner, owner)
            os.setresuid(owner, owner, owner)
            while True:
                exchange(one, other)
                if os.getppid() == 1:
                    break
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def give(path: Path, owner: int) -> Path:
    os.chown(path, owner, owner, follow_symlinks=False)
    return path


def made(path: Path, owner: int) -> Path:
    """A new directory of that owner's."""
    path.mkdir(parents=True)
    return give(path, owner)


@pytest.fixture
def top() -> Iterator[Path]:
    """A directory of root's, as /home is."""
    with TemporaryDirectory(prefix="homes-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def order(alice: Owner) -> Callable[[Path], tuple[Order, Verdicts]]:
    """Makes an order for a home, to put Alice's key there, with what the quarantine says of that."""
    pool.stop_on_signals()
    certificates = certificate.read(alice.public(ALICE)).certificates

    def order_for(home: Path) -> tuple[Order, Verdicts]:
        one = Order(ALICE, str(home / ".cryptomail"), certificates, frozenset({ALICE}), named=True)
        return one, changes.vet([one], 2048)[0]

    return order_for


def put(vetted: tuple[Order, Verdicts]) -> list[Outcome]:
    return changes.put([vetted], 2048)


def keyrings(home: Path) -> list[Path]:
    return [*home.rglob("pubring.kbx*")]


@pytest.mark.parametrize("aim", ["home", "above", "keyring", "directory"])
def test_owner_who_exchanges_folders_gets_no_key_into_another_s_keyring(
    aim: str, top: Path, order: Callable[[Path], tuple[Order, Verdicts]]
) -> None:
    """As it was seen to happen: the owner's home lies in a directory of their own, and is a link in one moment."""
    news = made(top / "news", NEWS)
    made(news / ".cryptomail", NEWS)
    folder = made(top / "games", GAMES)
    home = made(folder / "home", GAMES)
    if aim == "home":
        first, second = home, folder / "link"
        second.symlink_to(news)
    elif aim == "above":
        first, second = folder, top / "x"
        home, first = made(folder / "a/home", GAMES), folder / "a"
        second = made(folder / "b", GAMES)
        (second / "home").symlink_to(news)
        give(second / "home", GAMES)
        give(first, GAMES)
    elif aim == "keyring":
        first = made(home / ".cryptomail", GAMES)
        second = home / "link"
        second.symlink_to(news / ".cryptomail")
    else:  # a directory of the other's that they can move, as in a folder that both may write to
        first, second = home, made(folder / "theirs", NEWS)
    if second.is_symlink():
        give(second, GAMES)
    vetted = order(home)
    tries = taken = 0
    end = time.monotonic() + _SECONDS / 4
    with exchanging(first, second, GAMES):
        while time.monotonic() < end or (not taken and time.monotonic() < end + 60):  # on a busy machine
            tries += 1
            try:
                identity = pool.identity_of(str(home))
            except CryptomailError:
                continue
            assert identity.uid == GAMES
            for _, done in pool.each([(identity, [vetted])], put):
                assert not isinstance(done, CryptomailError)
                taken += done[0].status in (Status.IMPORTED, Status.UNCHANGED)
            assert keyrings(news) == []
    assert aim != "directory" or keyrings(first if first.stat().st_uid == NEWS else second) == []
    assert tries > 3
    assert taken > 0


def test_home_that_another_owner_could_exchange_is_refused(top: Path) -> None:
    home = made(top / "games/home", NEWS)
    give(home.parent, GAMES)
    with pytest.raises(PlaceError, match=rf"{home} can be replaced by user ID {GAMES}, who owns {home.parent}"):
        pool.identity_of(str(home))
    with pytest.raises(PlaceError, match="can be replaced by user ID"):
        pool.identity_of(str(home / "new"))


@pytest.mark.parametrize(
    ("mode", "group", "who"),
    [(0o777, 0, "everybody"), (0o775, 4711, "group ID 4711"), (0o1777, 0, ""), (0o775, 8, ""), (0o2775, NEWS, "")],
)
def test_home_in_a_directory_that_others_may_write_to_is_refused(mode: int, group: int, who: str, top: Path) -> None:
    """A group of the system's, as that of /var/mail, is root's to fill."""
    home = made(top / "all/home", NEWS)
    os.chown(home.parent, 0, group)
    home.parent.chmod(mode)
    if not who:
        assert pool.identity_of(str(home)) == Identity(NEWS, NEWS)
        return
    with pytest.raises(PlaceError, match=f"can be replaced by {who}, who may write to {home.parent}"):
        pool.identity_of(str(home))


def test_links_of_root_s_and_of_the_owner_s_lead_on(top: Path) -> None:
    """/home may be a link, and what is below one step above it too."""
    news = made(top / "disk/home/news", NEWS)
    for path in (top / "disk", top / "disk/home"):
        give(path, 0)
    (top / "home").symlink_to("disk/./home")
    (top / "disk/up").symlink_to("../home")
    (top / "roots").symlink_to(top / "home")
    (news / "mail").mkdir()
    give(news / "mail", NEWS)
    (news / "own").symlink_to("mail/../mail")
    give(news / "own", NEWS)
    for home in ("home/news", "roots/news", "disk/up/news", "home//news/", "home/news/own", "roots/news/own/new"):
        assert pool.identity_of(f"{top}/{home}") == Identity(NEWS, NEWS)
    (top / "round").symlink_to("round")
    with pytest.raises(PlaceError, match="too many links"):
        pool.identity_of(f"{top}/round/x")


def test_link_of_an_owner_s_to_another_home_is_refused(top: Path) -> None:
    alice, bob = made(top / "alice", GAMES), made(top / "bob", NEWS)
    (alice / "mail").symlink_to(bob)
    give(alice / "mail", GAMES)
    for home in (alice / "mail", alice / "mail/deeper"):
        with pytest.raises(PlaceError, match="belongs to somebody else"):
            pool.identity_of(str(home))
    assert pool.identity_of(str(bob)).uid == NEWS


def test_what_is_no_directory_is_refused(top: Path) -> None:
    os.mkfifo(top / "pipe")
    (top / "file").touch()
    for name in ("pipe", "file", "file/x"):
        with pytest.raises(PlaceError, match="is not a directory"):
            pool.identity_of(str(top / name))


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_an_owner_puts_in_the_place_of_a_file_holds_nobody_up(
    make: Callable[[Path], None], flags: int, tmp_path: Path
) -> None:
    make(tmp_path / "file")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises((places.NotAFileError, IsADirectoryError)):
        places.open_file(str(tmp_path / "file"), flags)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
