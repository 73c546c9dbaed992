"""What is refused, and in which words: sessions that cannot be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from muxsim.errors import Busy, SessionExists, StartError, TooMuch, UnknownEnvironment
from muxsim.serve.auth.callers import Caller
from muxsim.session.codes import BACKEND_GONE
from transports.http_rules import HTTPRefusal
from transports.messages import RequestId


@contextmanager
def refusing(caller: Caller, id: RequestId | None, status: int) -> Iterator[None]:
    """Answer what is asked for in this block with a refusal if it cannot be; of this status if it does not start.

    Why it does not may quote what an installer or the environment has said, which is not for agents.
    """
    try:
        yield
    except UnknownEnvironment as error:
        raise HTTPRefusal(404, str(error), id=id) from None
    except SessionExists as error:
        raise HTTPRefusal(409, str(error), id=id) from None
    except Busy as busy:
        raise too_busy(busy, id) from None
    except StartError as error:
        text = str(error) if caller.controls else "the environment could not be started"
        raise HTTPRefusal(status, text, code=BACKEND_GONE, id=id) from None


def too_busy(busy: Busy, id: RequestId | None) -> HTTPRefusal:
    """The refusal of a session for which there is no room."""
    retry = (b"retry-after", b"%d" % max(1, round(busy.retry_after)))
    return HTTPRefusal(429 if isinstance(busy, TooMuch) else 503, str(busy), code=BACKEND_GONE, id=id, headers=[retry])
