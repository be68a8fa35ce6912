"""The `tidings` command of the Python package: `python -m tidings`, or `tidings`.

All of it is the engine's, but for `run`: workers are Python's.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; its exit status, as `tidings --help` explains it. The process is to end with it."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["run"]:
        return _run(given[1:])
    from ._native import command

    # The command handles signals itself. Python's own handler would raise when it is over.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return command(["tidings", *given])


def _run(arguments: list[str]) -> int:
    from .errors import TidingsError
    from .run import WrongSubscriberError, consume, supervise

    parser = argparse.ArgumentParser(prog="tidings run", description="Consume with a subscriber of yours.")
    parser.add_argument("subscriber", help="package.module:subscriber")
    parser.add_argument("--processes", type=_count, default=1, help="how many processes consume (default 1)")
    parser.add_argument("--log-level", default="INFO", help="of Python's logging (default INFO)")
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
