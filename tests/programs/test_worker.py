"""`cryptomail worker`: what Dovecot gets from it, and what nobody can do to it."""

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.keys import Owner
from tests.support.fields import taken_apart
from tests.support.filtered import CANARY, STRANGE_MESSAGES, decrypt, fingerprint_of, install_gpg
from tests.support.lmtp import ENVELOPE, GOOD, Fake
from tests.support.lmtp import MESSAGE as TRACED
from tests.support.server import ALICE, Server, run
from tests.support.workers import MESSAGE, Worker, answer, ask, children, connected, head, opened, running, start, until


@pytest.fixture
def worker(enrolled: Server, tmp_path: Path) -> Iterator[Worker]:
    """A worker that finds a key of Alice's."""
    with running(enrolled, tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, alice: Owner) -> Iterator[Worker]:
    """A worker for many requests that do not change anything."""
    directory = tmp_path_factory.mktemp("shared")
    server = Server(directory)
    server.give(alice.public(ALICE))
    with running(server, directory) as started:
        yield started


@pytest.mark.parametrize("name", STRANGE_MESSAGES)
def test_owner_gets_back_exactly_what_arrived(name: str, shared: Worker, alice: Owner) -> None:
    output = shared.filter(STRANGE_MESSAGES[name])
    assert b"Content-Type: multipart/encrypted" in output
    assert opened(output, alice) == STRANGE_MESSAGES[name]


def test_options_of_a_script_are_followed(worker: Worker, alice: Owner, mallory: Owner) -> None:
    assert b"Subject: [...]\r\n" in worker.filter(MESSAGE, "--header-policy", "baseline")
    assert opened(worker.filter(MESSAGE, "--key", fingerprint_of(alice)), alice) == MESSAGE
    assert worker.filter(MESSAGE, "--key", fingerprint_of(mallory)) == b"-\n"


def test_what_needs_no_encryption_is_unchanged(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert worker.filter(MESSAGE, HOME=str(tmp_path / "other")) == MESSAGE + b"+\n"
    once = worker.filter(MESSAGE)
    assert worker.filter(once[:-2]) == once


def test_failure_is_told_and_logged_in_one_line_without_the_message(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert worker.filter(MESSAGE, "--require", HOME=str(tmp_path / "other")) == b"-\n"
    (line,) = worker.log
    assert re.fullmatch(
        "cryptomail: error: verdict=refused reason=no-key user=alice@example.org message_id=<1@example.com> "
        'msg="[^"]* has no key; [^"]*; nothing was stored, try again later"',
        line,
    )
    assert CANARY.decode() not in line


def test_failure_is_told_to_a_client_that_is_still_sending(worker: Worker) -> None:
    worker.server.config.write_text("size_limit = 100\n")
    for option in ("--frobnicate", "--require"):
        with connected(worker.filter_path) as connection:
            connection.sendall(worker.request(option) + MESSAGE + b"text\r\n" * 3_000_000)
            connection.shutdown(socket.SHUT_WR)
            assert answer(connection) == b"-\n"


def test_log_has_a_line_for_each_message_and_nothing_of_its_content(worker: Worker, alice: Owner) -> None:
    output = worker.filter(MESSAGE)
    until(lambda: worker.log)
    (line,) = worker.log
    matched = re.fullmatch(
        r"cryptomail: info: verdict=encrypted engine=sequoia keys=([0-9A-F]{40}) user=alice@example\.org "
        r'message_id=<1@example\.com> cache=miss octets_in=(\d+) octets_out=(\d+) ms=\d+\.\d msg="[^"]+"',
        line,
    )
    assert matched is not None
    assert matched[1] in alice.gpg("--with-colons", "--list-keys").decode()
    assert (int(matched[2]), int(matched[3])) == (len(MESSAGE), len(output) - 2)
    assert CANARY.decode() not in line


def test_log_cannot_be_written_to_by_strangers(worker: Worker) -> None:
    message = b"Message-ID: <1\x1b[31m@example.com>\r\n\r\n" + CANARY
    asked = 'a\ncryptomail: info: \x1b[31m" verdict=encrypted msg="'
    assert worker.filter(message, "--key", asked, USER='alice\nroot" verdict=encrypted x="') == b"-\n"
    (line,) = worker.log
    assert line.isprintable()
    assert [taken_apart(line)[name] for name in ("verdict", "user")] == [
        "refused",
        'alice\nroot" verdict=encrypted x="',
    ]


def test_sealed_message_is_delivered_and_said_to_be(worker: Worker, alice: Owner) -> None:
    server = Fake(str(worker.server.home), GOOD)
    assert worker.execute(TRACED, "seal", **ENVELOPE) == b"sealed+\n"
    assert server.said[1] == b"MAIL FROM:<b@example.com> BODY=8BITMIME"
    assert decrypt(server.taken, alice) == TRACED
    server.close()


def test_nothing_to_seal_is_said_too(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert worker.execute(TRACED, "seal", HOME=str(tmp_path / "other")) == b"pass+\n"


def test_delivery_that_is_refused_is_a_failure(worker: Worker) -> None:
    server = Fake(str(worker.server.home), GOOD | {b".": b"452 4.2.2 over quota"})
    assert worker.execute(TRACED, "seal", **ENVELOPE) == b"-\n"
    assert "over quota" in worker.log[-1]
    server.close()


@pytest.mark.parametrize("arguments", [[], ["--require"], ["filter"], ["worker"], ["--", "seal"], ["seal", "seal"]])
def test_socket_that_seals_does_nothing_else(arguments: list[str], shared: Worker) -> None:
    assert shared.execute(MESSAGE, *arguments) == b"-\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["seal"],
        ["--help"],
        ["-h"],
        ["--version"],
        ["--frobnicate"],
        ["--socket", "/tmp/x"],
        ["--listen", "/tmp/x"],
        ["--user", "bob"],
        ["--home", "/root"],
        ["--key"],
        ["--config", "/nonexistent"],
        ["--config", "/dev/zero"],
        ["@/etc/passwd"],
        ["x" * 1024] * 16,
        ["\udcff"],
    ],
    ids=lambda arguments: repr(arguments)[:30],
)
def test_script_cannot_ask_for_anything_else(arguments: list[str], shared: Worker) -> None:
    before = shared.children
    assert shared.filter(MESSAGE, *arguments) == b"-\n"
    assert shared.children == before


def test_script_cannot_name_a_configuration_of_its_own(worker: Worker, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('header_policy = "baseline"\n')
    own.chmod(0o666)
    assert worker.filter(MESSAGE, "--config", str(own)) == b"-\n"
    assert "not trusted" in worker.log[-1]
    own.chmod(0o644)
    assert b"Subject: [...]\r\n" in worker.filter(MESSAGE, "--config", str(own))


@pytest.mark.parametrize("sent", ["half a head", "a head", "half a message"])
def test_client_that_stalls_is_ended_and_others_are_served_meanwhile(sent: str, worker: Worker, alice: Owner) -> None:
    worker.server.config.write_text("time_limit = 2\n")
    whole = worker.request()
    begun = {"half a head": whole[:30], "a head": whole, "half a message": whole + MESSAGE[:50]}[sent]
    started = time.monotonic()
    with connected(worker.filter_path) as connection:
        connection.sendall(begun)
        time.sleep(0.2)
        assert [opened(worker.filter(MESSAGE), alice) for _ in range(3)] == [MESSAGE] * 3
        assert answer(connection) == b"-\n"
    assert time.monotonic() - started < 15
    assert any("time_limit" in line for line in worker.log)
    assert opened(worker.filter(MESSAGE), alice) == MESSAGE


def test_client_that_does_not_take_its_answer_is_ended(worker: Worker, alice: Owner) -> None:
    worker.server.config.write_text("time_limit = 2\n")
    with connected(worker.filter_path) as connection:
        connection.sendall(worker.request() + MESSAGE + os.urandom(1_500_000))
        connection.shutdown(socket.SHUT_WR)
        until(lambda: any("time_limit" in line for line in worker.log))
        assert not answer(connection).endswith(b"+\n")
    assert opened(worker.filter(MESSAGE), alice) == MESSAGE


def test_gpg_that_hangs_is_ended(enrolled: Server, tmp_path: Path) -> None:
    programs = install_gpg(tmp_path, "exec sleep 60")
    enrolled.config.write_text('time_limit = 1\nengine = "gnupg"\n')
    environment = os.environ["PATH"]
    os.environ["PATH"] = f"{programs}:{environment}"
    try:
        with running(enrolled, tmp_path) as worker:
            assert worker.filter(MESSAGE) == b"-\n"
            assert "time_limit" in worker.log[-1]
            assert not [one for child in worker.children for one in children(child)]
    finally:
        os.environ["PATH"] = environment


@pytest.mark.parametrize(
    "sent",
    [
        b"\n\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"VERSION\tscript\t3\t0\n-\n\n",
        b"VERSION\tscript\t4\t0\nnoreply\n\n",
        b"VERSION\tscript\t4\t0\n-\n\n",
        b"VERSION\tscript\t4\t0\nenv_USER\n-\n\n",
        b"VERSION\tscript\t4\t0\n" + b"env_A=b\n" * 125_000 + b"-\n\n",
        b"x" * 1_000_000,
        bytes(1_000_000),
        b"\xff\xfe" * 1_000,
    ],
    ids=lambda sent: repr(sent)[2:32],
)
def test_client_that_speaks_something_else_is_refused(sent: bytes, shared: Worker) -> None:
    before = shared.children
    assert ask(shared.filter_path, sent) == b"-\n"
    assert shared.children == before


@given(st.binary(max_size=500))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_octets_at_all_end_the_worker(shared: Worker, data: bytes) -> None:
    before = shared.children
    assert ask(shared.filter_path, data) == b"-\n"
    assert ask(shared.filter_path, b"VERSION\tscript\t4\t0\n" + data) == b"-\n"
    assert shared.children == before


class Patient(Fake):
    """Takes one connection after the other, and counts the messages that came to their end."""

    messages = 0

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                super()._serve()
                self.messages += self.ended
                self.ended = False


@pytest.mark.parametrize("seals", [False, True], ids=["filter", "seal"])
def test_client_that_hangs_up_at_any_octet_costs_nothing_but_itself(seals: bool, worker: Worker, alice: Owner) -> None:
    """Even behind the last one: without an answer its message is with the sender still, and will come again."""
    server = Patient(str(worker.server.home), GOOD)
    request = worker.request(*["seal"] * seals) + b"Subject: s\r\n\r\ntext\r\n"
    for length in range(len(request) + 1):
        with connected(worker.execute_path if seals else worker.filter_path) as connection:
            connection.sendall(request[:length])
    assert opened(worker.filter(MESSAGE), alice) == MESSAGE
    assert not [line for line in worker.log if "internal" in line or "has ended" in line]
    assert server.messages == 0
    server.close()


def test_client_that_resets_the_connection_is_no_error_of_ours(worker: Worker) -> None:
    """It closes while the answer is on its way."""
    with connected(worker.filter_path) as connection:
        connection.sendall(worker.request() + MESSAGE + os.urandom(1_500_000))
        connection.shutdown(socket.SHUT_WR)
        connection.recv(10)
    until(lambda: worker.log)
    assert "delivery process has gone" in worker.log[0]


def test_worker_process_that_is_killed_is_replaced(worker: Worker, alice: Owner) -> None:
    killed, other = worker.children
    time.sleep(0.5)  # somebody looked whether it was there
    os.kill(killed, signal.SIGKILL)
    until(lambda: len(worker.children) == 2 and killed not in worker.children)
    assert other in worker.children
    until(lambda: any(f"{killed} has ended" in line for line in worker.log))
    os.kill(other, signal.SIGKILL)
    assert [opened(worker.filter(MESSAGE), alice) for _ in range(4)] == [MESSAGE] * 4
    until(lambda: len(worker.children) == 2)


def test_worker_processes_end_with_the_one_that_started_them_even_where_that_is_killed(
    server: Server, tmp_path: Path
) -> None:
    process = start(
        server, "--listen", f"{tmp_path}/socket", "--processes", "2", stderr=subprocess.DEVNULL, start_new_session=True
    )
    until(lambda: len(children(process.pid)) == 2)
    started = children(process.pid)
    process.kill()
    process.wait(20)
    try:
        until(lambda: not any(Path(f"/proc/{one}").exists() for one in started))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("limit", "complaint"),
    [("NOFILE, (6, 6)", "internal error: OSError"), ("NPROC, (0, 0)", "cannot start a process")],
)
def test_worker_that_cannot_live_says_why_and_does_not_keep_the_machine_busy(
    limit: str, complaint: str, server: Server, tmp_path: Path
) -> None:
    """It may open hardly a file; or it may start no process."""
    fetched = f"import os, resource; resource.setrlimit(resource.RLIMIT_{limit}); os.setresuid(65534, 65534, 65534)"
    log = tmp_path / "log"
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, log.open("wb") as stderr:
        Path(directory).chmod(0o777)
        options = ["--listen", f"{directory}/socket", "--processes", "1"]
        process = start(server, *options, stderr=stderr.fileno(), fetched=fetched)
        until(log.read_text)
        time.sleep(1)
        process.terminate()
        process.wait(10)
    lines = log.read_text().splitlines()
    assert complaint in lines[0]
    assert len(lines) < 40


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_request_in_hand_is_finished_before_the_worker_stops(
    number: signal.Signals, worker: Worker, alice: Owner
) -> None:
    with connected(worker.filter_path) as connection:
        connection.sendall(worker.request() + MESSAGE[:50])
        time.sleep(0.3)
        worker.process.send_signal(number)
        until(lambda: len(worker.children) == 1)
        connection.sendall(MESSAGE[50:])
        connection.shutdown(socket.SHUT_WR)
        assert opened(answer(connection), alice) == MESSAGE
    assert worker.process.wait(10) == 0


def test_worker_can_be_stopped_at_any_moment(server: Server, tmp_path: Path) -> None:
    """From the first, when its processes are about to start."""
    for number in range(20):
        process = start(server, "--listen", f"{tmp_path}/{number}", "--processes", "2", stderr=subprocess.DEVNULL)
        until((tmp_path / str(number)).exists)
        time.sleep(number / 1000)
        process.terminate()
        assert process.wait(10) in (0, -signal.SIGTERM)


def test_changes_hold_from_the_next_message(
    server: Server, tmp_path: Path, alice: Owner, mallory: Owner, new_owner: Callable[[], Owner]
) -> None:
    """Without a restart: settings, a first key, another key, a key that is revoked, no key."""
    with running(server, tmp_path) as worker:
        assert worker.filter(MESSAGE) == MESSAGE + b"+\n"
        server.give(alice.public(ALICE))
        assert opened(worker.filter(MESSAGE), alice) == MESSAGE
        server.config.write_text('header_policy = "baseline"\n')
        assert b"Subject: [...]\r\n" in worker.filter(MESSAGE)
        server.config.write_text("nonsense")
        assert worker.filter(MESSAGE) == b"-\n"
        server.config.unlink()
        server.give(mallory.public("m" + ALICE))
        output = worker.filter(MESSAGE)
        assert opened(output, alice) == opened(output, mallory) == MESSAGE
        subprocess.run(["rm", "-r", server.home / ".cryptomail"], check=True)
        assert worker.filter(MESSAGE) == MESSAGE + b"+\n"
        revoked = new_owner()
        fingerprint = revoked.make_key(ALICE)
        server.give(revoked.public(ALICE))
        assert opened(worker.filter(MESSAGE), revoked) == MESSAGE
        revoked.revoke(fingerprint)
        server.give(revoked.public(ALICE))
        assert worker.filter(MESSAGE) == b"-\n"
        assert "was revoked" in worker.log[-1]


def test_key_that_expires_between_two_messages_is_not_used_for_the_second(
    server: Server, tmp_path: Path, new_owner: Callable[[], Owner]
) -> None:
    server.config.write_text('[on]\nexpired_key = "refuse"\n')
    owner = new_owner()
    fingerprint = owner.make_key(ALICE, expires="seconds=3")
    made = time.time()
    owner.gpg("--quick-set-expire", fingerprint, "seconds=3", "*")
    server.give(owner.public(ALICE))
    with running(server, tmp_path) as worker:
        assert opened(worker.filter(MESSAGE), owner) == MESSAGE
        time.sleep(max(0.0, made + 4.5 - time.time()))
        assert worker.filter(MESSAGE) == b"-\n"
        assert "expired on" in worker.log[-1]
        owner.gpg("--quick-set-expire", fingerprint, "1y")
        owner.gpg("--quick-set-expire", fingerprint, "1y", subkey_of(owner))
        server.give(owner.public(ALICE))
        assert opened(worker.filter(MESSAGE), owner) == MESSAGE


@pytest.mark.parametrize("engine", ["gnupg", "sequoia"])
def test_nothing_piles_up(engine: str, enrolled: Server, tmp_path: Path) -> None:
    enrolled.config.write_text(f'engine = "{engine}"\n')

    def kept(child: int) -> tuple[int, int]:
        return len(list(Path(f"/proc/{child}/fd").iterdir())), status_of(child, "VmRSS")

    with running(enrolled, tmp_path, processes=1) as worker:

        def ask_often(count: int) -> None:
            for number in range(count):
                sound = number % 4 > 0
                assert worker.filter(MESSAGE, *["--frobnicate"] * (not sound)).endswith(b"+\n" if sound else b"-\n")

        ask_often(40)
        (child,) = worker.children
        time.sleep(0.5)  # it closes the last connection when its answer is out
        descriptors, kilobytes = kept(child)
        ask_often(200)
        assert worker.children == [child]
        assert children(child) == []
        until(lambda: kept(child)[0] == descriptors)
        assert kept(child)[1] < kilobytes + 4_000


def test_message_does_not_wake_all_that_wait_for_one(enrolled: Server, tmp_path: Path) -> None:
    with running(enrolled, tmp_path, processes=6) as worker:
        worker.filter(MESSAGE)
        before = {child: status_of(child, "voluntary_ctxt_switches") for child in worker.children}
        for _ in range(40):
            worker.filter(MESSAGE)
        woken = sorted(status_of(child, "voluntary_ctxt_switches") - count for child, count in before.items())
        assert woken[0] < 10


def status_of(process: int, name: str) -> int:
    """What the kernel counts of a process (proc(5))."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def subkey_of(owner: Owner) -> str:
    listing = owner.gpg("--with-colons", "--list-keys").decode()
    return [line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:")][1]


def test_large_message_costs_no_memory(worker: Worker, alice: Owner) -> None:
    message = MESSAGE + b"0123456789abcdef" * 65_536 * 30
    for _ in range(3):
        assert worker.filter(message).endswith(b"+\n")
    assert opened(worker.filter(message), alice) == message
    for child in worker.children:
        peak = Path(f"/proc/{child}/status").read_text().partition("VmHWM:")[2].split()[0]
        assert int(peak) < 80_000


def complaint(*options: str) -> str:
    """The one line that a worker says which does not start."""
    done = run("worker", *options)
    assert (done.returncode, done.stdout) == (64, b"")
    assert done.stderr.count(b"\n") == 1
    return done.stderr.decode()


def test_nothing_to_listen_on_is_said() -> None:
    assert "no socket to listen on" in complaint()


@pytest.mark.parametrize("number", ["0", "-1", "x", ""])
def test_number_of_processes_must_make_sense(number: str, tmp_path: Path) -> None:
    assert "--processes" in complaint("--listen", f"{tmp_path}/socket", "--processes", number)


def test_place_that_cannot_have_a_socket_is_said(tmp_path: Path) -> None:
    assert "No such file or directory" in complaint("--listen", f"{tmp_path}/nonexistent/socket")
    assert "path too long" in complaint("--listen", f"{tmp_path}/{'x' * 108}")


def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_text("precious")
    assert "already in use" in complaint("--listen", str(file))
    assert file.read_text() == "precious"


def test_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not(
    enrolled: Server, tmp_path: Path, alice: Owner
) -> None:
    for name in ("filter", "execute"):
        with socket.socket(socket.AF_UNIX) as abandoned:
            abandoned.bind(str(tmp_path / name))
    with running(enrolled, tmp_path) as worker:
        assert "already in use" in complaint("--listen", worker.filter_path)
        assert opened(worker.filter(MESSAGE), alice) == MESSAGE


def test_socket_is_for_its_own_user_only(worker: Worker) -> None:
    for path in (worker.filter_path, worker.execute_path):
        assert Path(path).stat().st_mode & 0o777 == 0o600


def test_other_users_get_no_more_than_they_could_do_themselves(enrolled: Server) -> None:
    """A worker that runs as root becomes whoever asks; Alice's keyring and mailbox are not nobody's."""
    assert os.geteuid() == 0, "run this as root"
    client = (
        "import socket, sys\nc = socket.socket(socket.AF_UNIX)\nc.connect(sys.argv[1])\n"
        "c.sendall(sys.stdin.buffer.read())\nc.shutdown(socket.SHUT_WR)\nsys.stdout.buffer.write(c.recv(65536))"
    )
    with tempfile.TemporaryDirectory() as directory, running(enrolled, Path(directory)) as worker:
        Path(directory).chmod(0o755)
        for path, arguments, complaint in (
            (worker.filter_path, [], "Permission denied"),
            (worker.execute_path, ["seal"], "may not deliver"),
        ):
            Path(path).chmod(0o666)
            command = ["/usr/bin/python3", "-I", "-c", client, path]
            request = worker.request(*arguments) + MESSAGE
            done = subprocess.run(
                command, input=request, check=True, capture_output=True, user="nobody", extra_groups=[]
            )
            assert done.stdout == b"-\n"
            assert complaint in worker.log[-1]


def test_socket_may_be_passed_on_as_systemd_does(enrolled: Server, tmp_path: Path, alice: Owner) -> None:
    path = str(tmp_path / "passed-on")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        number = listener.fileno()
        fetched = (
            f"import os; os.dup2({number}, 200); os.close({number}); os.dup2(200, 3); os.close(200)\n"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))"
        )
        process = start(enrolled, "--processes", "2", stderr=subprocess.DEVNULL, fetched=fetched, pass_fds=[number])
    request = head({b"USER": ALICE.encode(), b"HOME": os.fsencode(enrolled.home)})
    assert opened(ask(path, request + MESSAGE), alice) == MESSAGE
    process.terminate()
    assert process.wait(10) == 0
