"""Translate MQTT reason codes of refused connections and messages into text and advice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.mqtt.limits import NO_QOS_1, NO_RETAIN, Limits

if TYPE_CHECKING:
    from enum import IntEnum

_MAX_BROKER_TEXT_CHARS: Final = 120
_LOGIN_ADVICE: Final = "check mqtt.username and the password"
_IDENTIFIER_ADVICE: Final = "set another mqtt.instance, which is part of the client identifier"
_OTHER_SERVER_ADVICE: Final = "set mqtt.host and mqtt.port to it"

_ADVICE_5: Final = {
    0x84: "set mqtt.version: 3.1.1",
    0x85: _IDENTIFIER_ADVICE,
    0x86: _LOGIN_ADVICE,
    0x87: _LOGIN_ADVICE,
    0x8A: "the broker's operator has to lift the ban",
    0x8C: "the broker wants an authentication method that candlecast does not have",
    0x8E: "does another daemon run under the same mqtt.instance?",
    0x90: "the broker allows no topics below candlecast/v1; change its rules",
    0x95: "raise the broker's packet limit",
    0x97: "raise the broker's quota",
    0x9C: _OTHER_SERVER_ADVICE,
    0x9D: _OTHER_SERVER_ADVICE,
    0x9F: "raise the broker's connection rate",
}
_PERMANENT_5: Final = frozenset({0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x9D})
_SUPPORTED_5: Final = {0x9A: NO_RETAIN, 0x9B: NO_QOS_1}

_REFUSALS_311: Final = {
    1: ("unacceptable protocol version", "set mqtt.version: 5"),
    2: ("identifier rejected", _IDENTIFIER_ADVICE),
    3: ("server unavailable", ""),
    4: ("bad user name or password", _LOGIN_ADVICE),
    5: ("not authorized", _LOGIN_ADVICE),
}
_PERMANENT_311: Final = frozenset({1, 2, 4, 5})

NOT_AUTHORIZED: Final = "not authorized"
TOO_LARGE: Final = "packet too large"
_DENIAL_ADVICE: Final = {
    "quota exceeded": "raise the broker's quota",
    "topic name invalid": "change the broker's rules for topics",
}


class Refusal(NamedTuple):
    """The broker refuses the login or closes the connection with a reason.

    Attributes:
        reason: as text.
        permanent: whether trying again cannot help.
        advice: what to do; may be empty.
        supported: the features that the broker supports, where a requested one is missing.
    """

    reason: str
    permanent: bool
    advice: str = ""
    supported: Limits | None = None


def refusal_5(
    code: IntEnum, *, login: bool, reference: str | None, explanation: str | None
) -> Refusal:
    """Interpret a CONNACK or DISCONNECT of version 5.

    Args:
        code: its reason code.
        login: whether it answers a login.
        reference: the server that it names instead.
        explanation: the broker's reason string.
    """
    number = int(code)
    reason = reason_text(code)
    for text in (reference, explanation):
        if text and text.isprintable():
            reason += f": {text[:_MAX_BROKER_TEXT_CHARS]}"
    permanent = login and number in _PERMANENT_5
    return Refusal(reason, permanent, _ADVICE_5.get(number, ""), _SUPPORTED_5.get(number))


def refusal_311(code: int) -> Refusal:
    """Interpret the return code of a CONNACK of version 3.1.1."""
    reason, advice = _REFUSALS_311.get(code, (f"code {code}", ""))
    return Refusal(reason, code in _PERMANENT_311, advice)


ONLY_311: Final = Refusal("it speaks MQTT 3.1.1", permanent=True, advice="set mqtt.version: 3.1.1")
"""The meaning of an answer in version 3.1.1 to a login in version 5."""


def denial_advice(reason: str, who: str, root: str, size: int) -> str:
    """Advise how to make the broker accept a denied message.

    Args:
        reason: why it was denied, as text.
        who: the client, such as ``user 'me'``.
        root: the common prefix of all topics.
        size: bytes of the payload.
    """
    if reason == TOO_LARGE:
        return f"let it take more than {size} bytes"
    if reason == NOT_AUTHORIZED:
        return f"let {who} write to {root}/#"
    return _DENIAL_ADVICE.get(reason, "see the broker's log")


def reason_text(code: IntEnum) -> str:
    """Return the name of a reason code in lower case with spaces."""
    return code.name.lower().replace("_", " ")
