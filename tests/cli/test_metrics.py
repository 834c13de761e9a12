"""`cryptomail metrics`: what the workers have done, in numbers, and nothing of whom it was for."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from lab.keys import Owner
from sieve_filter.cli import metrics
from sieve_filter.keys import status
from sieve_filter.keys.decision import Left
from sieve_filter.programs import counts
from sieve_filter.programs.counts import Counts
from tests.support.server import ALICE, Command, Server
from tests.support.workers import MESSAGE, Worker, ask, connected, running, until

Numbers = Mapping[tuple[str, str], float]  # by name, and the value of the label if there is one


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "metrics")


@pytest.fixture
def numbers(command: Command, place: str) -> Callable[[], Numbers]:
    """What it says now."""
    return lambda: read(command("metrics", "--socket", place))


@pytest.fixture
def worker(enrolled: Server, tmp_path: Path, place: str, numbers: Callable[[], Numbers]) -> Iterator[Worker]:
    with running(enrolled, tmp_path, "--listen-metrics", place, processes=1) as started:
        seen = -1.0
        while seen != (seen := numbers()[REFUSED, "usage"]) or seen < 2:  # who only looked whether it is there
            time.sleep(0.1)
        yield started


def read(done: "subprocess.CompletedProcess[bytes]") -> Numbers:
    assert done.returncode == 0, done.stderr
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in openmetrics.text_string_to_metric_families(done.stdout.decode())
        for sample in family.samples
    }


def grown(before: Numbers, now: Numbers) -> dict[tuple[str, str], float]:
    """By how much which counts are larger than before."""
    assert before.keys() == now.keys()
    return {name: now[name] - before[name] for name in now if name[0].endswith("_total") and now[name] != before[name]}


def messages(before: Numbers, numbers: Callable[[], Numbers], count: int) -> dict[tuple[str, str], float]:
    """The same, when so many messages more are counted: that is done when whoever sent one has the answer already."""
    outcomes = (ENCRYPTED, LEFT, REFUSED)
    until(lambda: sum(more for (name, _), more in grown(before, numbers()).items() if name in outcomes) >= count)
    return grown(before, numbers())


ENCRYPTED, LEFT, REFUSED = (f"cryptomail_{name}_messages_total" for name in ("encrypted", "left_alone", "refused"))
RECEIVED, RETURNED = "cryptomail_received_bytes_total", "cryptomail_returned_bytes_total"
LOOKUPS = "cryptomail_keyring_lookups_total"


def test_encrypted_messages_are_counted_with_their_sizes_by_engine_and_by_whether_the_key_was_in_memory(
    worker: Worker, numbers: Callable[[], Numbers]
) -> None:
    before = numbers()
    outputs = [worker.filter(MESSAGE) for _ in range(2)]
    octets = sum(len(output) - len(b"+\n") for output in outputs)
    assert messages(before, numbers, 2) == {
        (ENCRYPTED, "sequoia"): 2,
        (LOOKUPS, "miss"): 1,
        (LOOKUPS, "hit"): 1,
        (RECEIVED, ""): 2 * len(MESSAGE),
        (RETURNED, ""): octets,
    }
    worker.server.config.write_text('engine = "gnupg"\n')
    before = numbers()
    worker.filter(MESSAGE)
    assert messages(before, numbers, 1)[ENCRYPTED, "gnupg"] == 1


def test_what_is_left_alone_is_counted_by_reason(
    worker: Worker, numbers: Callable[[], Numbers], tmp_path: Path, alice: Owner
) -> None:
    (tmp_path / "other").mkdir()
    before = numbers()
    encrypted = worker.filter(MESSAGE)[:-2]
    assert worker.filter(MESSAGE, HOME=str(tmp_path / "other")).endswith(b"+\n")
    assert worker.filter(encrypted) == encrypted + b"+\n"
    worker.server.config.write_text('size_limit = 10\n[on]\ntoo_large = "store-plain"\n')
    assert worker.filter(MESSAGE) == MESSAGE + b"+\n"
    found = messages(before, numbers, 4)
    assert {name: found[name] for name in found if name[0] in (ENCRYPTED, LEFT, REFUSED)} == {
        (ENCRYPTED, "sequoia"): 1,
        (LEFT, "no-key"): 1,
        (LEFT, "encrypted-already"): 1,
        (LEFT, "too-large"): 1,
    }


def test_mail_in_clear_of_owners_who_have_a_key_is_counted_as_such(
    worker: Worker, numbers: Callable[[], Numbers], tmp_path: Path, new_owner: Callable[[], Owner]
) -> None:
    gone = new_owner()
    gone.make_key("gone@example.org", made_at="20200101T000000", expires="20210101T000000")
    server = Server(tmp_path / "gone")
    server.home.mkdir()
    server.give(gone.public("gone@example.org"))
    worker.server.config.write_text('[on]\nexpired_key = "store-plain"\n')
    before = numbers()
    assert worker.filter(MESSAGE, USER="gone@example.org", HOME=str(server.home)) == MESSAGE + b"+\n"
    assert messages(before, numbers, 1)[LEFT, "expired-key"] == 1


def test_what_is_refused_is_counted_by_reason(worker: Worker, numbers: Callable[[], Numbers], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    before = numbers()
    assert worker.filter(MESSAGE, "--require", HOME=str(tmp_path / "other")) == b"-\n"
    assert worker.filter(MESSAGE, "--frobnicate") == b"-\n"
    worker.server.config.write_text("size_limit = 10\n")
    assert worker.filter(MESSAGE) == b"-\n"
    worker.server.config.write_text("this is not TOML")
    assert worker.filter(MESSAGE) == b"-\n"
    found = {name: count for name, count in messages(before, numbers, 4).items() if name[0] == REFUSED}
    assert found == {(REFUSED, reason): 1 for reason in ("no-key", "usage", "too-large", "config")}


def test_process_that_is_killed_is_counted_with_the_time_that_its_client_waited(
    worker: Worker, numbers: Callable[[], Numbers]
) -> None:
    before = numbers()
    with connected(worker.filter_path) as connection:
        connection.sendall(worker.request() + MESSAGE)
        time.sleep(1)
        for child in worker.children:
            os.kill(child, signal.SIGKILL)
        until(lambda: grown(before, numbers()).get((REFUSED, "process-died")) == 1)
    now = numbers()
    bucket = "cryptomail_answer_seconds_bucket"
    assert now[bucket, "+Inf"] - now[bucket, "0.5"] == before[bucket, "+Inf"] - before[bucket, "0.5"] + 1
    assert 1 <= now["cryptomail_answer_seconds_sum", ""] - before["cryptomail_answer_seconds_sum", ""] < 20


def test_nobody_who_sends_mail_or_calls_the_filter_adds_a_name_to_it(
    worker: Worker, numbers: Callable[[], Numbers], command: Command, place: str
) -> None:
    before = numbers()
    for number in range(20):
        strange = b"Message-ID: <%d@example.com>\r\nContent-Type: x-%d/y\r\n\r\ntext" % (number, number)
        worker.filter(strange, f"--frobnicate{number}", USER=f"user{number}@example.org")
        worker.filter(strange, USER=f"user{number}\n@example.org", HOME=f"/home/{number}")
        ask(worker.filter_path, b"VERSION\tnothing\t%d\n" % number)
    assert numbers().keys() == before.keys()
    shown = command("metrics", "--socket", place).stdout
    assert b"user" not in shown.replace(b'reason="unusable-key"', b"")
    assert ALICE.encode() not in shown


def test_prometheus_reads_its_own_format_too(worker: Worker, command: Command, place: str) -> None:
    worker.filter(MESSAGE)
    text = command("metrics", "--socket", place, "--prometheus").stdout.decode()
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    assert {family.type for family in families.values()} == {"counter", "gauge", "histogram"}
    assert all(family.documentation.endswith(".") for family in families.values())
    [up] = families["cryptomail_up"].samples
    assert up.value == 1
    [begun] = families["cryptomail_start_time_seconds"].samples
    assert time.time() - 100 < begun.value <= time.time()


@pytest.mark.parametrize("what", ["nothing", "a file", "somebody else", "garbage"])
def test_where_nobody_can_be_asked_that_is_a_number_too(what: str, command: Command, place: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        if what == "a file":
            Path(place).touch()
        elif what != "nothing":
            listener.bind(place)
            listener.listen()
            child = os.fork()
            if child == 0:
                connection, _ = listener.accept()
                connection.sendall(b"" if what == "somebody else" else b"\0\0\0\2\0\0\0\0[]")
                os._exit(0)
        done = command("metrics", "--socket", place)
    assert done.returncode == os.EX_UNAVAILABLE
    assert done.stdout == b"# HELP cryptomail_up Whether the workers could be asked.\n# TYPE cryptomail_up gauge\n" + (
        b"cryptomail_up 0.0\n# EOF\n"
    )
    assert done.stderr.count(b"\n") == 1
    assert place.encode() in done.stderr


def test_whoever_asks_and_does_not_listen_keeps_nobody_waiting(worker: Worker, numbers: Callable[[], Numbers]) -> None:
    place = str(Path(worker.filter_path).with_name("metrics"))
    held = [connected(place) for _ in range(200)]
    for one in held:
        one.__enter__()
    assert worker.filter(MESSAGE).endswith(b"+\n")
    until(lambda: numbers()[ENCRYPTED, "sequoia"] == 1)
    for one in held:
        one.__exit__(None, None, None)


def test_numbers_are_shown_to_the_same_user_alone(worker: Worker, place: str) -> None:
    assert Path(place).stat().st_mode & 0o777 == 0o600


PROMETHEUS = Path(__file__).resolve().parents[2] / "docs" / "admin" / "prometheus"


def known() -> dict[str, dict[str, set[str]]]:
    """The names of all numbers that there are, each with its labels and what these may be; none: anything."""
    fresh = metrics.text(Counts(0).shown(), prometheus=True).decode()
    check = status.as_prometheus(status.Check((), 0, status.Wiring(0, "")))
    found: dict[str, dict[str, set[str]]] = {}
    for family in parser.text_string_to_metric_families(f"{fresh}{check}\n"):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def expressions(file: str) -> str:
    """What the alerts, or the board, ask Prometheus for."""
    text = (PROMETHEUS / file).read_text()
    if file.endswith(".json"):
        return "\n".join(target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"])
    return "\n".join(re.findall(r"^ +expr: (.*?)^ +(?:for|labels):", text, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("file", ["alerts.yml", "grafana.json"])
def test_alerts_and_board_ask_for_nothing_that_is_not_there(file: str) -> None:
    asked = expressions(file)
    there = known()
    used = re.findall(r"\b(cryptomail_\w+)(?:\{([^}]*)\})?", asked)
    assert len({name for name, _ in used}) >= 6
    for name, selector in used:
        assert name in there
        for label, operator, value in re.findall(r'(\w+)([=!~]+)"([^"]*)"', selector):
            if label != "instance":  # Prometheus itself adds it
                values = set(value.split("|") if "~" in operator else [value])
                assert values <= there[name][label], (name, label)
    for name, label in re.findall(r"by \((?:instance, )?(\w+)\) \((?:increase|rate)\((cryptomail_\w+)", asked):
        assert name in {"instance", "le", *there[label]}


def test_alerts_know_each_reason_for_mail_in_clear_of_owners_with_keys() -> None:
    [named] = re.findall(r'cryptomail_left_alone_messages_total\{reason=~"([^"]*)"', expressions("alerts.yml"))
    harmless = {Left.ENCRYPTED_ALREADY.value, Left.NO_KEY.value}
    assert set(named.split("|")) == {one.value for one in Left} - harmless


def test_document_has_each_number_and_each_reason() -> None:
    document = (PROMETHEUS.parent / "metrics.md").read_text()
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in known() if "_key_" not in name}
    families -= {"cryptomail_keys_used", "cryptomail_wiring_state", "cryptomail_check_state"}
    assert [name for name in families if f"`{name}`" not in document] == []
    assert [name for _, name in counts.OUTCOMES if f"`{name}`" not in document] == []
