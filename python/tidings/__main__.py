"""The `tidings` command of the Python package: `python -m tidings`, or `tidings`."""

from __future__ import annotations

import argparse
import logging
import sys


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; its exit status: 0 done, 1 it failed, 2 it was called wrongly."""
    from . import __version__
    from .errors import TidingsError
    from .run import WrongSubscriberError, consume, supervise

    parser = argparse.ArgumentParser(prog="tidings", description="Domain events that arrive.")
    parser.add_argument("--version", action="version", version=f"tidings {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="consume with a subscriber of yours")
    run.add_argument("subscriber", help="package.module:subscriber")
    run.add_argument("--processes", type=_count, default=1, help="how many processes consume (default 1)")
    run.add_argument("--log-level", default="INFO", help="of Python's logging (default INFO)")
    given = parser.parse_args(arguments)
    if not logging.getLogger().handlers:
        logging.basicConfig(level=given.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        if given.processes == 1:
            consume(given.subscriber)
            return 0
        return supervise(given.subscriber, given.processes)
    except WrongSubscriberError as error:
        print(f"tidings: {error}", file=sys.stderr)
        return 2
    except TidingsError as error:
        print(f"tidings: {error}", file=sys.stderr)
        return 1


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one process has to run")
    return number


if __name__ == "__main__":
    sys.exit(main())
