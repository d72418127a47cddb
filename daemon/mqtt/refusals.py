"""Why an MQTT broker refuses a connection or a message, in words, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.mqtt.limits import NO_QOS_1, NO_RETAIN, Limits

if TYPE_CHECKING:
    from enum import IntEnum

_SHOWN: Final = 120
_LOGIN: Final = "check mqtt.username and the password"
_IDENTIFIER: Final = "set another mqtt.instance, which is part of the client identifier"
_OTHER_SERVER: Final = "set mqtt.host and mqtt.port to it"

_ADVICE_5: Final = {
    0x84: "set mqtt.version: 3.1.1",
    0x85: _IDENTIFIER,
    0x86: _LOGIN,
    0x87: _LOGIN,
    0x8A: "the broker's operator has to lift the ban",
    0x8C: "the broker wants an authentication method that candlecast does not have",
    0x8E: "does another daemon run under the same mqtt.instance?",
    0x90: "the broker allows no topics below candlecast/v1; change its rules",
    0x95: "raise the broker's packet limit",
    0x97: "raise the broker's quota",
    0x9C: _OTHER_SERVER,
    0x9D: _OTHER_SERVER,
    0x9F: "raise the broker's connection rate",
}
_FINAL_5: Final = frozenset({0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x9D})
_WITHOUT_5: Final = {0x9A: NO_RETAIN, 0x9B: NO_QOS_1}

_REFUSALS_311: Final = {
    1: ("unacceptable protocol version", "set mqtt.version: 5"),
    2: ("identifier rejected", _IDENTIFIER),
    3: ("server unavailable", ""),
    4: ("bad user name or password", _LOGIN),
    5: ("not authorized", _LOGIN),
}
_FINAL_311: Final = frozenset({1, 2, 4, 5})

NOT_AUTHORIZED: Final = "not authorized"
TOO_LARGE: Final = "packet too large"
_DENIALS: Final = {
    "quota exceeded": "raise the broker's quota",
    "topic name invalid": "change the broker's rules for topics",
}


class Refused(NamedTuple):
    """The broker does not let us in, or sends us away.

    Attributes:
        reason: in words.
        final: whether trying again cannot help.
        advice: what to do; may be empty.
        without: what the broker does take, where it lacks what was asked for.
    """

    reason: str
    final: bool
    advice: str = ""
    without: Limits | None = None


def refused_5(code: IntEnum, *, login: bool, reference: str | None, said: str | None) -> Refused:
    """What a CONNACK or DISCONNECT of version 5 means.

    Args:
        code: its reason code.
        login: whether it answers a login.
        reference: the server that it names instead.
        said: its own explanation.
    """
    number = int(code)
    reason = words(code)
    for text in (reference, said):
        if text and text.isprintable():
            reason += f": {text[:_SHOWN]}"
    final = login and number in _FINAL_5
    return Refused(reason, final, _ADVICE_5.get(number, ""), _WITHOUT_5.get(number))


def refused_311(code: int) -> Refused:
    """What a return code of a CONNACK of version 3.1.1 means."""
    reason, advice = _REFUSALS_311.get(code, (f"code {code}", ""))
    return Refused(reason, code in _FINAL_311, advice)


ONLY_311: Final = Refused("it speaks MQTT 3.1.1", final=True, advice="set mqtt.version: 3.1.1")
"""What an answer in version 3.1.1 to a login in version 5 means."""


def denial_advice(reason: str, who: str, root: str, size: int) -> str:
    """What to do about a denied message.

    Args:
        reason: why it was denied, in words.
        who: whose access it is, such as ``user 'me'``.
        root: what all topics begin with.
        size: bytes of the payload.
    """
    if reason == TOO_LARGE:
        return f"let it take more than {size} bytes"
    if reason == NOT_AUTHORIZED:
        return f"let {who} write to {root}/#"
    return _DENIALS.get(reason, "see the broker's log")


def words(code: IntEnum) -> str:
    """A reason code as text."""
    return code.name.lower().replace("_", " ")
