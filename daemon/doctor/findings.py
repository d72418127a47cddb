"""What `candlecast doctor` makes of what it saw: a sentence, and what to do about it. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

_OFF_S: Final = 1.0
"""Logs, timers and consumers go by this machine's clock; forecasts by the exchange's."""

_ROW_BYTES: Final = 150
"""A candle and its forecast in the history."""

_SPARE_BYTES: Final = 1 << 30
"""For models, downloads and SQLite's write-ahead log."""

_INSTALLED: Final = Path("/etc/candlecast")
"""Where the units look for configurations."""

_NAMED: Final = 3
"""Symbols that a line names before it counts the others."""

_MARKS: Final = {True: "✓", False: "✗", None: "–"}


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        topic: what was looked at.
        good: None where there was nothing to judge.
        text: what was seen.
        advice: what to do; empty where there is nothing to do.
    """

    topic: str
    good: bool | None
    text: str
    advice: str = ""


def ok(topic: str, text: str) -> Finding:
    """All is as it should be."""
    return Finding(topic, good=True, text=text)


def problem(topic: str, text: str, advice: str) -> Finding:
    """Something is to be seen to."""
    return Finding(topic, good=False, text=text, advice=advice)


def unknown(topic: str, text: str, advice: str = "") -> Finding:
    """There was nothing to judge."""
    return Finding(topic, good=None, text=text, advice=advice)


def line(finding: Finding) -> str:
    """A finding as it is printed.

    >>> print(line(ill("disk", "full", "delete something")))
    ✗ disk      full
                → delete something
    """
    advice = f"\n{'':12}→ {finding.advice}" if finding.advice else ""
    return f"{_MARKS[finding.good]} {finding.topic:<9} {finding.text}{advice}"


def verdict(findings: Iterable[Finding]) -> tuple[bool, str]:
    """Whether all is well, and the last line."""
    failed = sum(finding.good is False for finding in findings)
    if not failed:
        return True, "All is well."
    return False, f"{failed} finding{'s' if failed > 1 else ''} to see to."


def judge_clock(offset_s: float | None, error_s: float) -> Finding:
    """Judge this machine's wall clock.

    Args:
        offset_s: by how much the exchange's clock is ahead; None where it does not tell.
        error_s: by how much that may be wrong.
    """
    if offset_s is None:
        return unknown("clock", "the exchange does not tell its time")
    text = f"{abs(offset_s):.3f} s {'behind' if offset_s > 0 else 'ahead of'} the exchange's"
    if abs(offset_s) <= _OFF_S + error_s:
        return ok("clock", f"this machine's is {text}")
    advice = "let systemd-timesyncd or chrony set it: timedatectl set-ntp true"
    return problem("clock", f"this machine's is {text}", advice)


class Listened(NamedTuple):
    """What came of listening to some symbols of one kind of market.

    Attributes:
        symbols: what was subscribed to.
        heard: those of which a candle came.
        deaf_to: those of which none came though they were traded.
        within_s: how long it was waited.
        error: what ended the connection; None if it did not end.
        trouble: the last message that could not be used; None if there was none.
    """

    symbols: Sequence[str]
    heard: Collection[str]
    deaf_to: Collection[str]
    within_s: float
    error: Exception | None = None
    trouble: Exception | None = None


def judge_stream(exchange: str, listened: Listened) -> Finding:
    """Judge whether candles come by websocket; what is silent without a trade may be so.

    Args:
        exchange: ccxt id.
        listened: what came of it.
    """
    symbols, heard, deaf_to, within_s, error, trouble = listened
    advice = "check that websockets pass the firewall or the proxy (exchange.endpoint.ws)"
    if error is not None:
        return problem("stream", f"{exchange}'s stream fails: {error}", advice)
    if deaf_to:
        text = f"{exchange} streams nothing about {_listed(deaf_to)}, though it is traded"
        why = f": {trouble!r}" if trouble is not None else ""
        return problem("stream", f"{text}{why}", f"{advice}; docs/exchanges.md lists what is heard")
    silent = [symbol for symbol in symbols if symbol not in heard]
    if not silent:
        return ok("stream", f"candles of {_listed(symbols)} come by websocket")
    quiet = f"nothing about {_listed(silent)} within {within_s:g} s"
    if heard:
        text = f"candles of {_listed(heard)} come by websocket; {quiet}, nor any trade"
        return ok("stream", text)
    if trouble is not None:
        return problem("stream", f"cannot read {exchange}: {trouble!r}", advice)
    again = "run it again while the market is traded; if that does not help, "
    return problem("stream", f"{quiet}; either no trade, or no stream", again + advice)


def _listed(symbols: Collection[str]) -> str:
    """A few symbols by name."""
    few = sorted(symbols)[:_NAMED]
    rest = len(symbols) - len(few)
    return ", ".join(few) + (f" and {rest} more" if rest else "")


def judge_disk(free: int, held: int, symbols: int, step_ms: int, keep_days: float) -> Finding:
    """Judge whether the disk holds the history that is to be kept.

    Args:
        free: bytes.
        held: bytes that the history takes already.
        symbols: how many.
        step_ms: timeframe.
        keep_days: `history.keep_days`.
    """
    rows = symbols * keep_days * 86_400_000 / step_ms
    needed = rows * _ROW_BYTES + _SPARE_BYTES
    text = f"{_size(free)} free; {keep_days:g} days of history and models take {_size(needed)}"
    if free + held >= needed:
        return ok("disk", text)
    return problem("disk", text, "free some space, or keep fewer days: history.keep_days")


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"


def units_of(config: Path) -> tuple[str, str]:
    """The systemd units of the daemon that a configuration is for.

    >>> units_of(Path("/etc/candlecast/hourly.yaml"))
    ('candlecast@hourly.service', 'candlecast-retrain@hourly.timer')
    """
    is_instance = config.parent == _INSTALLED and config.name != "config.yaml"
    name = f"@{config.stem}" if is_instance else ""
    return f"candlecast{name}.service", f"candlecast-retrain{name}.timer"


def judge_unit(name: str, shown: Mapping[str, str]) -> Finding:
    """Judge a systemd unit by what `systemctl show` says of it."""
    state, result = shown.get("ActiveState", ""), shown.get("Result", "")
    if shown.get("LoadState") != "loaded":
        return unknown("systemd", f"{name} is not installed")
    if state == "failed":
        look = f"journalctl --unit {name} --lines 50"
        return problem("systemd", f"{name} has failed ({result})", f"read: {look}")
    if state not in {"active", "activating", "reloading"}:
        start = f"systemctl enable --now {name}"
        return problem("systemd", f"{name} is {state}", f"start it: {start}")
    if shown.get("UnitFileState") == "disabled":
        text = f"{name} is {state}, but would not be after a restart of the machine"
        return problem("systemd", text, f"systemctl enable {name}")
    return ok("systemd", f"{name} is {state}")


def judge_health(address: str, status: int, health: Mapping[str, object] | None) -> Finding:
    """Judge what answered on the address of the status page.

    Args:
        address: host and port.
        status: HTTP status; 0 for something that does not speak HTTP.
        health: the decoded answer; None for one that is not candlecast's.
    """
    if status == 401:  # noqa: PLR2004 - unauthorized
        return unknown("http", f"what listens on {address} asks for a login")
    if health is None or "alive" not in health:
        advice = "stop what listens there, or set another http.port"
        return problem("http", f"{address} is taken by another program", advice)
    if not health["alive"]:
        advice = "restart it and report what its log says last"
        return problem("http", "the daemon runs, but is stuck", advice)
    if not health.get("ready"):
        stale = health.get("stale_symbols")
        count = len(stale) if isinstance(stale, list) else 0
        broker = "" if health.get("broker_connected") else ", no broker"
        text = f"the daemon runs, but is not ready: {count} stale symbols{broker}"
        return problem("http", text, "wait for its warm-up, then read its log")
    late = health.get("rest_only_symbols")
    if isinstance(late, list) and late:
        text = f"the daemon runs, but candles of {len(late)} symbols come by REST alone, late"
        return problem("http", text, "read its log: their volumes by websocket are of another unit")
    return ok("http", f"the daemon runs on {address} and is ready")
