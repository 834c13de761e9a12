"""The Web Key Directory's layout."""

from sieve_filter.openpgp import wkd


def test_key_is_where_the_draft_says_it_is() -> None:
    # draft-koch-openpgp-webkey-service, section 3.1, has this example.
    assert wkd.key_path("Joe.Doe@Example.ORG") == "openpgpkey/example.org/hu/iy9q119eutrkn8s1mk4r39qejnbu3n5q"
    assert wkd.policy_path("Example.ORG") == "openpgpkey/example.org/policy"


def test_only_ascii_letters_are_mapped_to_lower_case() -> None:
    assert wkd.key_path("\u00c4@example.org") != wkd.key_path("\u00e4@example.org")


def test_zbase32_is_that_of_its_description() -> None:
    assert wkd.zbase32(b"\x00") == "yy"
    assert wkd.zbase32(b"\xd4\x7a\x04") == "4t7ye"
