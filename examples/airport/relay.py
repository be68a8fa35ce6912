"""The relay of operations.db: publishes what was committed. This is `tidings outbox relay`, ended by the director."""

import os
import signal
import sys
from threading import Thread

from tidings.__main__ import main


def end_with_the_director() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)  # as an operator would: it hands over and ends


os.chdir(os.environ["AIRPORT_DIR"])
Thread(target=end_with_the_director, daemon=True).start()
print("ready", flush=True)
COMMAND = ["outbox", "relay", "--quiet", "--store", "sqlite:operations.db?mode=rw", "--exchange", "airport"]
# When a relay is killed, the next one waits for the lease; the default is 30 s.
SETTINGS = ["--batch", "200", "--lease", "2s", "--poll-interval", "50ms"]
sys.exit(main(COMMAND + SETTINGS))
