"""Log lines of `key=value`: whatever is in a value, programs take the line apart as it was put together."""

from hypothesis import example, given
from hypothesis import strategies as st

from sieve_filter.system import logfields
from tests.support.fields import taken_apart

NAMES = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz_"), min_size=1, max_size=10)
VALUES = st.text() | st.text(st.sampled_from(' ="\\ab\n\t\x1b\x85\u2028\udcff\U0001f511'))


@given(st.dictionaries(NAMES, VALUES, min_size=1))
@example({"msg": 'x" verdict=encrypted y="'})
@example({"msg": 'x\\" verdict=encrypted y=\\'})
@example({"user": "verdict=encrypted"})
def test_a_line_is_taken_apart_into_what_it_was_made_of(fields: dict[str, str]) -> None:
    line = logfields.line(**fields)
    assert taken_apart(line) == fields
    assert line.isascii()
    assert line.isprintable()


def test_ordinary_values_are_written_as_they_are() -> None:
    written = logfields.line(verdict="encrypted", user="a@example.org", message_id="<1@x>", octets_in=12, ms="1.5")
    assert written == "verdict=encrypted user=a@example.org message_id=<1@x> octets_in=12 ms=1.5"


def test_other_values_are_written_as_json_writes_them() -> None:
    assert logfields.line(message_id="", msg='a "b" \u00fc') == 'message_id="" msg="a \\"b\\" \\u00fc"'
