"""Modules that stand in for other libraries."""

from __future__ import annotations

__all__ = ["install_as_domain_event_broker"]


def install_as_domain_event_broker() -> None:
    """Has `import domain_event_broker` mean `tidings.compat.domain_event_broker`, whatever is installed.

    Call it before anything imports `domain_event_broker`: in `manage.py`, `conftest.py` or `sitecustomize.py`. It may
    be called more than once.

    >>> from tidings.compat import install_as_domain_event_broker
    >>> install_as_domain_event_broker()
    >>> from domain_event_broker import Subscriber

    Raises:
        RuntimeError: The other library is imported already: its classes would be used beside ours.
    """
    from ._alias import install

    install("domain_event_broker", "tidings.compat.domain_event_broker")
