"""Takes a message in, and keeps no more of it than deciding needs. Pure: pieces in, pieces out."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import NamedTuple, Protocol

from sieve_filter.detection import classify
from sieve_filter.detection.classify import Kind, Shape
from sieve_filter.mail.message import Message, split
from sieve_filter.mail.mime import ContentType


class Store(Protocol):
    """Holds what is written to it, and gives it back in pieces."""

    def write(self, data: bytes, /) -> object: ...

    def __iter__(self) -> Iterator[bytes]: ...


class Incoming(NamedTuple):
    """A message on its way in.

    `message` is all of it where `whole` is true. Else it is a beginning, with the header section and some of the body;
    `rest` are the pieces that follow.
    """

    message: Message
    whole: bool
    rest: Iterable[bytes]

    @property
    def pieces(self) -> Iterator[bytes]:
        """The message, byte for byte; to be read once."""
        return chain([self.message.raw], self.rest)


def receive(pieces: Iterator[bytes], small: int) -> Incoming:
    """Take the message in; of one that has more than `small` octets as little as possible."""
    taken = bytearray()
    for piece in pieces:
        taken += piece
        if len(taken) > small:
            beginning = split(bytes(taken))
            if beginning.settled:
                return Incoming(beginning, False, pieces)
            small = 2 * len(taken)
    return Incoming(split(bytes(taken)), True, ())


def look(incoming: Incoming, hold: Callable[[], Store]) -> tuple[Shape, Incoming]:
    """What the message is; and the message once more, for looking at it takes its pieces.

    A large one that may be encrypted already is put into what `hold` makes: all of it has to be looked at. Only where
    it has not the usual form is it taken into memory as a whole.
    """
    if incoming.whole:
        return classify.classify(incoming.message, _content_type), incoming
    if not classify.may_be_encrypted(incoming.message):
        return Shape(Kind.PLAIN, "it is large, and its beginning is not that of an encrypted message"), incoming
    from sieve_filter.detection.stream import Skim  # small messages do without

    held = hold()
    skim = Skim(incoming.message)
    for piece in incoming.rest:
        held.write(piece)
        skim.feed(piece)
    incoming = incoming._replace(rest=held)
    return skim.finish() or classify.classify(split(b"".join(incoming.pieces)), _content_type), incoming


def _content_type(header: bytes) -> ContentType | None:
    from sieve_filter.mail import lenient  # it takes long to load, and hardly any message needs it

    return lenient.content_type(header)
