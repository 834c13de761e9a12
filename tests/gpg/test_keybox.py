"""The keyring file of GnuPG 2.1 and later."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter.gpg import keybox
from sieve_filter.openpgp.packets import certificate_fingerprint
from tests.support.samples import Home, home

__all__ = ["home"]


@pytest.fixture
def file(home: Home) -> bytes:
    return Path(home.path, "pubring.kbx").read_bytes()


def test_each_certificate_is_found_and_the_file_can_be_put_together_again(home: Home, file: bytes) -> None:
    box = keybox.split(file)
    listing = home.gpg("--with-colons", "--list-keys").decode()
    assert len(box.blobs) == 2
    for fingerprint, blob in box.blobs.items():
        assert f":{fingerprint}:" in listing
        assert certificate_fingerprint(keybox.packets(blob)) == fingerprint
    assert keybox.join(box.header, box.blobs.values()) == file


def test_keyring_of_some_of_the_blobs_is_one_that_gpg_reads(home: Home, file: bytes, tmp_path: Path) -> None:
    box = keybox.split(file)
    for fingerprint, blob in box.blobs.items():
        (tmp_path / "pubring.kbx").write_bytes(keybox.join(box.header, [blob]))
        listing = home.gpg("--homedir", str(tmp_path), "--with-colons", "--list-keys").decode()
        assert next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:")) == fingerprint
        assert listing.count("\npub:") == 1


@pytest.mark.parametrize("cut", [1, 20, 40, 200])
def test_file_that_is_cut_short_is_refused(file: bytes, cut: int) -> None:
    with pytest.raises(ValueError, match="cut short"):
        keybox.split(file[:-cut])


def test_certificate_that_is_damaged_is_refused(file: bytes) -> None:
    for place in range(len(file) - 300, len(file)):
        with pytest.raises(ValueError, match=r"damaged|cut short|not one of"):
            keybox.split(file[:place] + bytes([file[place] ^ 0x20]) + file[place + 1 :])


@given(st.binary(max_size=200))
def test_any_octets_are_read_or_refused(data: bytes) -> None:
    with suppress(ValueError):
        keybox.split(data)
