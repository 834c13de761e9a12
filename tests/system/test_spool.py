"""The spool and the memory file give back what was written to them, and leave nothing behind."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter.errors import SpoolError
from sieve_filter.system.spool import MemoryFile, Spool


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the spool puts its file."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def filled(*pieces: bytes) -> Spool:
    spool = Spool()
    for piece in pieces:
        spool.write(piece)
    return spool


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_what_was_written_comes_back(pieces: list[bytes]) -> None:
    spool = filled(*pieces)
    assert b"".join(spool) == b"".join(pieces)
    assert spool.size == len(b"".join(pieces))


@pytest.mark.parametrize("size", [1_999_999, 2_000_000, 2_000_001, 4_000_001, 9_999_999])
@pytest.mark.parametrize("piece", [65_536, 1_000_003, 10_000_000])
def test_large_content_comes_back_too(size: int, piece: int) -> None:
    content = os.urandom(size)
    spool = filled(*[content[start : start + piece] for start in range(0, size, piece)])
    assert b"".join(spool) == content
    assert b"".join(spool) == content, "a second time"
    assert spool.size == size


def test_little_is_never_written_to_a_file() -> None:
    before = descriptors()
    assert b"".join(filled(b"x" * 2_000_000)) == b"x" * 2_000_000
    assert descriptors() == before


def test_nothing_with_a_name_is_left_not_even_meanwhile(directory: Path) -> None:
    before = descriptors()
    spool = filled(b"x" * 5_000_000)
    assert not list(directory.iterdir())
    (file,) = descriptors() - before
    assert file.startswith(str(directory))
    assert file.endswith("(deleted)")
    next(iter(spool))
    del spool
    assert descriptors() == before


def descriptors() -> set[str]:
    """What this process has open."""
    found = set()
    for one in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(one.readlink()))
        except FileNotFoundError:  # that of the directory itself
            continue
    return {one for one in found if not one.startswith("/proc")}


@contextmanager
def room_for(octets: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1_000_000, 2_500_000])
def test_file_that_cannot_grow_is_a_temporary_failure(room: int) -> None:
    with room_for(room), pytest.raises(SpoolError, match="File too large"):
        filled(b"x" * 1_500_000, b"x" * 1_500_000, b"x" * 1_500_000)


def test_missing_directory_is_a_temporary_failure(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", f"{directory}/nonexistent")
    with pytest.raises(SpoolError, match="nonexistent: No such file"):
        filled(b"x" * 2_000_001)


@pytest.mark.parametrize("value", ["", None])
def test_directory_that_nobody_names_is_a_sound_one(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv("TMPDIR")
    else:
        monkeypatch.setenv("TMPDIR", value)
    before = descriptors()
    spool = filled(b"x" * 2_000_001)
    (file,) = descriptors() - before
    assert file.startswith("/var/tmp/")
    assert spool.size == 2_000_001


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_what_was_written_to_memory_comes_back(pieces: list[bytes]) -> None:
    memory = MemoryFile()
    for piece in pieces:
        memory.write(piece)
    assert b"".join(memory) == b"".join(pieces)
    assert b"".join(memory) == b"".join(pieces), "a second time"


def test_memory_file_lies_on_no_disk_and_goes_with_its_owner(directory: Path) -> None:
    before = descriptors()
    memory = MemoryFile()
    memory.write(b"x" * 5_000_000)
    assert not list(directory.iterdir())
    (file,) = descriptors() - before
    assert file.startswith("/memfd:")
    next(iter(memory))
    del memory
    assert descriptors() == before


def test_memory_file_that_cannot_grow_is_a_temporary_failure() -> None:
    memory = MemoryFile()
    with room_for(1_000_000), pytest.raises(SpoolError, match="in memory: File too large"):
        memory.write(b"x" * 1_500_000)


def test_memory_file_that_cannot_be_made_is_a_temporary_failure() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(SpoolError, match="in memory: Too many open files"):
            MemoryFile()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
