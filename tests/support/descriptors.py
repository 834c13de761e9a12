"""Programs that write down which descriptors they were started with, and then do their work."""

from pathlib import Path

_RECORDER = """\
#!/usr/bin/python3 -I
import os, stat, sys
# Not from /proc, which a chroot may lack. 3 is this script, where the interpreter still reads it.
kinds = {{stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket", stat.S_IFREG: "file", stat.S_IFCHR: "device"}}
found = []
for number in range(3, 1024):
    try:
        status = os.fstat(number)
    except OSError:
        continue
    if not os.path.samestat(status, os.stat(sys.argv[0])):
        found.append(f"{{number}} {{kinds.get(stat.S_IFMT(status.st_mode), 'other')}}")
record = f"{{os.path.basename(sys.argv[0])}} of user {{os.getuid()}}: {{', '.join(found) or 'nothing'}}\\n"
descriptor = os.open({log!r}, os.O_WRONLY | os.O_APPEND)
os.write(descriptor, record.encode())
os.close(descriptor)
os.execv({program!r}, sys.argv)
"""


class Recorder:
    """`directory` has the recording programs; `inside` is how they know it, in case they run in another tree."""

    def __init__(self, directory: Path, inside: str | None = None, **programs: str) -> None:
        self.directory = directory
        self._log = directory / "log"
        directory.mkdir()
        directory.chmod(0o755)
        self._log.touch()
        self._log.chmod(0o666)
        for name, program in programs.items():
            file = directory / name
            file.write_text(_RECORDER.format(log=f"{inside or directory}/log", program=program))
            file.chmod(0o755)

    def take(self) -> list[str]:
        """A line for each start since the last time: `gpg of user 8: nothing`, or `…: 5 pipe, 7 socket`."""
        lines = self._log.read_text().splitlines()
        self._log.write_text("")
        return lines
