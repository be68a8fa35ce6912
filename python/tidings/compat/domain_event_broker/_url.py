"""URLs with the parameters that pika reads, as the engine reads them."""

from __future__ import annotations

import ast
import logging
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

log = logging.getLogger("tidings")

#: Parameters of pika's URLs that have no counterpart: the engine decides these things itself.
IGNORED = frozenset(
    (
        "backpressure_detection",
        "blocked_connection_timeout",
        "channel_max",
        "client_properties",
        "connection_attempts",
        "frame_max",
        "locale",
        "retry_delay",
        "tcp_options",
    )
)
#: Time-outs in seconds; the engine has one for reaching the broker, in milliseconds.
TIMEOUTS = ("socket_timeout", "stack_timeout")
#: Files that `ssl_options` names, and what the engine calls them.
FILES = {"ca_certs": "cacertfile", "certfile": "certfile", "keyfile": "keyfile"}


def translated(url: str) -> str:
    """The URL with pika's parameters in the engine's words; those that it does not know are left for it to refuse.

    >>> translated("amqp://localhost/%2F?heartbeat=1&socket_timeout=5&channel_max=7")
    'amqp://localhost/%2F?heartbeat=1&connection_timeout=5000'
    """
    parts = urlsplit(url)
    if not parts.query:
        return url
    known: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in IGNORED:
            log.debug("the URL parameter %s has no effect", name)
        elif name in TIMEOUTS:
            known["connection_timeout"] = str(max(1, round(float(value) * 1000)))
        elif name == "ssl_options":
            known |= _files(value)
        else:
            known[name] = value
    return urlunsplit(parts._replace(query=urlencode(known)))


def _files(text: str) -> dict[str, str]:
    options: Any = ast.literal_eval(text)
    if not isinstance(options, dict):
        raise ValueError("ssl_options must be a dictionary, such as {'ca_certs': '/etc/ssl/ca.pem'}")
    left = sorted(options.keys() - FILES.keys() - {"cert_reqs", "ssl_version", "server_hostname"})
    if left:
        raise ValueError(f"ssl_options: {left[0]!r} is not supported; use {', '.join(FILES)}")
    return {FILES[name]: str(value) for name, value in options.items() if name in FILES}
