"""Decides whether a large message is encrypted already, while it goes by. Pure: pieces in, the verdict out.

It is what `classify.classify` says of the message without the lines of base64 that make up most of it: one line takes
their place. They divide no parts, so the message consists of the same parts without them. Their octets are looked at as
they come.
"""

from sieve_filter import limits
from sieve_filter.detection.classify import Opener, Shape, classify, open_payload
from sieve_filter.mail.message import Message, split
from sieve_filter.mail.mime import WHITE_SPACE
from sieve_filter.mail.randomness import Randomness
from sieve_filter.openpgp.armor import Content, content_start
from sieve_filter.openpgp.encrypted import EncryptedMessage, Walker

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" + WHITE_SPACE

# Stands for the lines that have gone by. It is longer than what it could be found in otherwise.
_GONE = b"\n" + b"A" * (limits.FRAME_OCTETS + 1)


class Skim:
    """Looks at a message, of which `beginning` has the header section and some of the body."""

    def __init__(self, beginning: Message) -> None:
        self._content = Content()
        self._walker = Walker(Randomness())
        self._behind = b""  # what goes with the next piece, from a line end on; then what is behind the base64
        self._ending = False
        start = beginning.body_start
        gone = beginning.raw.rfind(b"\n", start, start + limits.FRAME_OCTETS)
        self._before = beginning.raw[: max(gone, start)]
        self._lost = not self._begin()
        self.feed(beginning.raw[len(self._before) :])

    def feed(self, piece: bytes) -> None:
        """Go on with the next octets."""
        if self._lost:
            return
        text = self._behind + piece
        if not self._ending:
            other = text.translate(None, _BASE64)
            end = text.rindex(b"\n", 0, text.index(other[:1]) if other else None)
            self._walker.feed(self._content.feed(text[:end]))
            text = text[end:]
            self._ending = other != b""
        self._behind = text
        self._lost = len(text) > limits.FRAME_OCTETS

    def finish(self) -> Shape | None:
        """What `classify` says of the whole message; None where that cannot be told without having all of it."""
        if self._lost:
            return None
        around = self._around(self._behind)
        encrypted = self._finish(around[1]) if around else None
        return self._classify(self._behind, lambda data: encrypted if _GONE in data else open_payload(data))

    def _begin(self) -> bool:
        """Take the armor off what is before the lines that go by; False where these are no armor's."""
        before, _ = self._around(b"") or (b"", b"")
        start = content_start(before)
        if start is None:
            return False
        try:
            self._walker.feed(self._content.feed(before[start:]))
        except ValueError:
            return False
        return True

    def _finish(self, behind: bytes) -> EncryptedMessage | None:
        """What the armor that ends with `behind` is encrypted to."""
        octets = self._content.finish(behind)
        if octets is None:
            return None
        self._walker.feed(octets)
        return self._walker.finish()

    def _around(self, behind: bytes) -> tuple[bytes, bytes] | None:
        """What is before and behind the lines that have gone by, in the text that must be OpenPGP.

        None where they are in no such text, or its transfer encoding changes them. `behind`: as in `_classify`.
        """
        texts: list[bytes] = []
        self._classify(behind, texts.append)
        around = [text.partition(_GONE) for text in texts if _GONE in text]
        return (around[0][0], around[0][2]) if around else None

    def _classify(self, behind: bytes, opener: Opener) -> Shape:
        """What a message with `behind` behind the lines that have gone by is."""
        return classify(split(self._before + _GONE + behind), None, opener)
