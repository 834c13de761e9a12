"""The journal: what was about to be done when a run was killed, and nothing that was not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter.errors import BusyError, PlaceError
from sieve_filter.mailbox import journal
from sieve_filter.mailbox.journal import Entry, Note

NOTE = Note('"Entw&APw-rfe"', 1_795_597_444, 4_000_000_000, tuple(Entry(uid, 14_000, "ab" * 32) for uid in range(50)))


def test_a_note_is_there_until_it_is_done(tmp_path: Path) -> None:
    file = tmp_path / "state/of/mailbox"
    with journal.opened(str(file)) as noted:
        assert noted.read() is None
        noted.write(NOTE)
    with journal.opened(str(file)) as noted:
        assert noted.read() == NOTE
        noted.write(NOTE._replace(entries=()))
        assert noted.read() == NOTE._replace(entries=())
        noted.clear()
    with journal.opened(str(file)) as noted:
        assert noted.read() is None


def test_a_note_that_was_cut_off_anywhere_counts_for_nothing(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    with journal.opened(str(file)) as noted:
        noted.write(NOTE)
        whole = file.read_bytes()
        for end in range(0, len(whole), 7):
            file.write_bytes(whole[:end])
            assert noted.read() is None


@given(st.binary(max_size=200))
def test_whatever_is_in_the_file_it_is_read(content: bytes) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as directory:
        file = Path(directory, "journal")
        file.write_bytes(content + b"\n")
        with journal.opened(str(file)) as noted:
            assert noted.read() is None or content


def test_one_run_at_a_time_has_it(tmp_path: Path) -> None:
    file = str(tmp_path / "journal")
    with journal.opened(file), pytest.raises(BusyError), journal.opened(file):
        pass
    with journal.opened(file):
        pass


def test_what_is_no_file_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "pipe").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("pipe", "link"):
        with pytest.raises(PlaceError), journal.opened(str(tmp_path / name)):
            pass
    assert not (tmp_path / "elsewhere").exists()
