"""Takes a message in, and keeps no more of it in memory than deciding needs. Pure: pieces in, pieces out."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from sieve_filter import shape
from sieve_filter.message import Message, split


class Incoming(NamedTuple):
    """A message on its way in.

    `message` is all of it where `whole` is true. Else it is a beginning that shows that the message is not encrypted
    yet, with the header section and some of the body; `rest` are the pieces that follow.
    """

    message: Message
    whole: bool
    rest: Iterable[bytes]

    @property
    def pieces(self) -> Iterator[bytes]:
        """The message, byte for byte; to be read once."""
        return chain([self.message.raw], self.rest)


def receive(pieces: Iterator[bytes], small: int) -> Incoming:
    """Take the message in; of one that has more than `small` octets as little as possible.

    One that may be encrypted already is taken as a whole all the same, for every byte of it has to be looked at.
    """
    taken = bytearray()
    for piece in pieces:
        taken += piece
        if len(taken) > small:
            break
    beginning = split(bytes(taken))
    if len(taken) <= small:
        return Incoming(beginning, True, ())
    if not shape.may_be_encrypted(beginning):
        return Incoming(beginning, False, pieces)
    for piece in pieces:
        taken += piece
    return Incoming(split(bytes(taken)), True, ())
