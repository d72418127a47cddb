"""Execute the requests of one client of Binance's candle streams."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import orjson

from daemon.sandbox.protocols.base import Messages, Session

_STREAM: Final = re.compile(r"[a-z0-9]+@[A-Za-z0-9_@+:]+")
_ID: Final = re.compile(r"[A-Za-z0-9]{1,36}")
_INT64: Final = 2**63


class _StreamRequestError(Exception):
    """A stream request that Binance answers with an error code and message."""

    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg


class BinanceSession(Session):
    """One client's subscriptions to market streams."""

    def __init__(self, *, combined: bool, names: Iterable[str], max_streams: int) -> None:
        """Start with the streams named in the address.

        Args:
            combined: wrap every event in ``{"stream": …, "data": …}``.
            names: stream names; unknown ones (ccxt connects to ``/ws/0``) get no messages.
            max_streams: limit of streams per connection.
        """
        super().__init__()
        self.combined = combined
        self.topics = dict.fromkeys(names)
        self._max_streams = max_streams

    def reply(self, text: str | bytes, now_ms: int) -> list[bytes]:
        """Execute one request and return the response."""
        del now_ms
        request_id: object = None
        try:
            request = _parse(text)
            request_id = _checked_id(request.get("id"))
            return [orjson.dumps({"result": self._execute(request), "id": request_id})]
        except _StreamRequestError as error:
            body: dict[str, object] = {"error": {"code": error.code, "msg": error.msg}}
            return [orjson.dumps(body if request_id is None else body | {"id": request_id})]

    def _execute(self, request: dict[str, object]) -> list[str] | None:
        method = request.get("method")
        if method == "LIST_SUBSCRIPTIONS":
            return list(self.topics)
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            detail = "missing field `method`" if method is None else f"unknown variant `{method}`"
            code = 2
            msg = (
                f"Invalid request: {detail}, "
                "expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`"
            )
            raise _StreamRequestError(code, msg)
        names = _checked_names(request.get("params"))
        if method == "UNSUBSCRIBE":
            for name in names:
                self.topics.pop(name, None)
            return None
        wanted = self.topics | dict.fromkeys(names)
        if len(wanted) > self._max_streams:
            code, msg = 4, "Too many subscriptions"
            raise _StreamRequestError(code, msg)
        self.topics = wanted
        return None

    def select(self, messages: Messages) -> list[bytes]:
        """The messages of a burst for the subscribed topics, wrapped if the address is combined."""
        if not self.combined:
            return super().select(messages)
        return [
            b'{"stream":"%b","data":%b}' % (name.encode(), raw)
            for name in self.topics
            for raw in messages(name)
        ]


def _parse(text: str | bytes) -> dict[str, object]:
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        code, msg = 3, f"Invalid JSON: {error}"
        raise _StreamRequestError(code, msg) from None
    if not isinstance(request, dict):
        code, msg = 2, "Invalid request: expected an object"
        raise _StreamRequestError(code, msg)
    return request


def _checked_id(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        legal = -_INT64 <= value < _INT64
    else:
        legal = value is None or (isinstance(value, str) and _ID.fullmatch(value) is not None)
    if not legal:
        code = 2
        msg = "Invalid request: request ID must be an integer, alphanumeric or null"
        raise _StreamRequestError(code, msg)
    return value


def _checked_names(params: object) -> list[str]:
    if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
        code, msg = 2, "Invalid request: params must be an array of stream names"
        raise _StreamRequestError(code, msg)
    if not all(_STREAM.fullmatch(name) for name in params):
        code, msg = 2, "Invalid request: invalid stream"
        raise _StreamRequestError(code, msg)
    return params
