"""The command line behind `make lab`, `make lab-stop` and `make demo`."""

import argparse
import sys
import tempfile
from pathlib import Path

from lab import demo, server


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="start a Dovecot and print where it is")
    start.add_argument("--mode", choices=server.MODES, default="sealed")
    start.add_argument("directory", nargs="?", type=Path, help="default: a new directory in /tmp")
    stop = commands.add_parser("stop", help="stop the Dovecot in that directory")
    stop.add_argument("directory", type=Path)
    commands.add_parser("demo", help="show cryptomail at work")
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "start":
                directory = arguments.directory or Path(tempfile.mkdtemp(prefix="cryptomail-lab-", dir="/tmp"))
                print(server.start(directory.absolute(), arguments.mode))
            case "stop":
                server.stop(arguments.directory.absolute())
            case "demo":
                return demo.main()
    except server.LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
