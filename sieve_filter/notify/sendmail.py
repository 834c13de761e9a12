"""Sends a message through the machine's sendmail program, which every mail server has. Starts no other program."""

import subprocess

from sieve_filter.errors import DeliveryError

_SECONDS = 20


def send(program: str, recipient: str, message: bytes) -> None:
    """Have `program` send `message` to `recipient`, with the null sender: nobody wants to hear that it did not arrive.

    Raises DeliveryError.
    """
    # Each line is the message's own, dots too (-i); its recipient is never taken from its header section (no -t).
    command = [program, "-i", "-f", "<>", "--", recipient]
    try:
        done = subprocess.run(
            command, input=message.replace(b"\r\n", b"\n"), capture_output=True, timeout=_SECONDS, env={}
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise DeliveryError(f"cannot send with {program}: {type(error).__name__}") from error
    if done.returncode != 0:
        raise DeliveryError(f"{program} ended with exit code {done.returncode}; look at the mail server's log")
