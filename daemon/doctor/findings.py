"""Judge what `candlecast doctor` measured, with advice for each problem. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

_MAX_CLOCK_OFFSET_S: Final = 1.0
"""Logs, timers and consumers use this machine's clock; forecasts use the exchange's."""

_ROW_BYTES: Final = 150
"""Size of a candle and its forecast in the history."""

_SPARE_BYTES: Final = 1 << 30
"""Space for models, downloads and SQLite's write-ahead log."""

_CONFIG_FOLDER: Final = Path("/etc/candlecast")
"""Where the systemd units read configurations."""

_MAX_NAMED_SYMBOLS: Final = 3
"""Symbols that a finding names; the others are counted."""

_MARKS: Final = {True: "✓", False: "✗", None: "–"}


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        topic: what was checked.
        good: whether it is in order; None if that is unknown.
        text: what was found.
        advice: what to do; empty if nothing.
    """

    topic: str
    good: bool | None
    text: str
    advice: str = ""


def ok(topic: str, text: str) -> Finding:
    """A finding without a problem."""
    return Finding(topic, good=True, text=text)


def problem(topic: str, text: str, advice: str) -> Finding:
    """A finding that needs action."""
    return Finding(topic, good=False, text=text, advice=advice)


def unknown(topic: str, text: str, advice: str = "") -> Finding:
    """A finding that could not be judged."""
    return Finding(topic, good=None, text=text, advice=advice)


def line(finding: Finding) -> str:
    """Format a finding for printing.

    >>> print(line(problem("disk", "full", "delete something")))
    ✗ disk      full
                → delete something
    """
    advice = f"\n{'':12}→ {finding.advice}" if finding.advice else ""
    return f"{_MARKS[finding.good]} {finding.topic:<9} {finding.text}{advice}"


def verdict(findings: Iterable[Finding]) -> tuple[bool, str]:
    """Whether no check found a problem, and the last line to print."""
    failed = sum(finding.good is False for finding in findings)
    if not failed:
        return True, "No problems found."
    return False, f"{failed} problem{'s' if failed > 1 else ''} found."


def judge_clock(offset_s: float | None, error_s: float) -> Finding:
    """Judge this machine's wall clock.

    Args:
        offset_s: the exchange's time minus this machine's, seconds; None if it is unknown.
        error_s: uncertainty of the offset, seconds.
    """
    if offset_s is None:
        return unknown("clock", "the exchange does not report its time")
    direction = "behind" if offset_s > 0 else "ahead of"
    text = f"this machine's is {abs(offset_s):.3f} s {direction} the exchange's"
    if abs(offset_s) <= _MAX_CLOCK_OFFSET_S + error_s:
        return ok("clock", text)
    advice = "synchronize it with systemd-timesyncd or chrony: timedatectl set-ntp true"
    return problem("clock", text, advice)


class StreamResult(NamedTuple):
    """The result of subscribing to some symbols of one kind of market.

    Attributes:
        symbols: subscribed symbols.
        received: symbols of which a candle was received.
        missing: symbols of which none was received although they were traded.
        within_s: time limit, seconds.
        error: what ended the connection; None if it did not end.
        invalid: the last message that could not be parsed; None without one.
    """

    symbols: Sequence[str]
    received: Collection[str]
    missing: Collection[str]
    within_s: float
    error: Exception | None = None
    invalid: Exception | None = None


def judge_stream(exchange: str, result: StreamResult) -> Finding:
    """Judge whether candles are received by websocket.

    Symbols without a trade may be silent.

    Args:
        exchange: ccxt id.
        result: what was received.
    """
    symbols, received, missing, within_s, error, invalid = result
    advice = "check that the firewall or proxy allows websockets (exchange.endpoint.ws)"
    if error is not None:
        return problem("stream", f"{exchange}'s stream fails: {error}", advice)
    if missing:
        text = f"{exchange} streams no candles of {_listed(missing)}, though there were trades"
        why = f": {invalid!r}" if invalid is not None else ""
        hint = "docs/exchanges.md lists the supported streams"
        return problem("stream", f"{text}{why}", f"{advice}; {hint}")
    silent = [symbol for symbol in symbols if symbol not in received]
    if not silent:
        return ok("stream", f"candles of {_listed(symbols)} are received by websocket")
    text = f"no candle of {_listed(silent)} within {within_s:g} s"
    if received:
        text = f"candles of {_listed(received)} are received by websocket; {text}, nor any trade"
        return ok("stream", text)
    if invalid is not None:
        return problem("stream", f"cannot read {exchange}: {invalid!r}", advice)
    retry = "run it again while the market is traded; if that does not help, "
    return problem("stream", f"{text}: no trades, or no stream", retry + advice)


def _listed(symbols: Collection[str]) -> str:
    """Name a few symbols and count the others."""
    few = sorted(symbols)[:_MAX_NAMED_SYMBOLS]
    rest = len(symbols) - len(few)
    return ", ".join(few) + (f" and {rest} more" if rest else "")


def judge_disk(free: int, held: int, symbols: int, step_ms: int, keep_days: float) -> Finding:
    """Judge whether the disk has space for the history and the models.

    Args:
        free: free space, bytes.
        held: current size of the history, bytes.
        symbols: number of symbols.
        step_ms: length of a candle, milliseconds.
        keep_days: `history.keep_days`.
    """
    rows = symbols * keep_days * 86_400_000 / step_ms
    needed = rows * _ROW_BYTES + _SPARE_BYTES
    text = f"{_size(free)} free; {keep_days:g} days of history and models need {_size(needed)}"
    if free + held >= needed:
        return ok("disk", text)
    return problem("disk", text, "free disk space, or lower history.keep_days")


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"


def units_of(config: Path) -> tuple[str, str]:
    """The systemd units that belong to a configuration file.

    >>> units_of(Path("/etc/candlecast/hourly.yaml"))
    ('candlecast@hourly.service', 'candlecast-retrain@hourly.timer')
    """
    is_instance = config.parent == _CONFIG_FOLDER and config.name != "config.yaml"
    name = f"@{config.stem}" if is_instance else ""
    return f"candlecast{name}.service", f"candlecast-retrain{name}.timer"


def judge_unit(name: str, shown: Mapping[str, str]) -> Finding:
    """Judge a systemd unit by the properties that `systemctl show` prints."""
    state, result = shown.get("ActiveState", ""), shown.get("Result", "")
    if shown.get("LoadState") != "loaded":
        return unknown("systemd", f"{name} is not installed")
    if state == "failed":
        command = f"journalctl --unit {name} --lines 50"
        return problem("systemd", f"{name} has failed ({result})", f"read its log: {command}")
    if state not in {"active", "activating", "reloading"}:
        command = f"systemctl enable --now {name}"
        return problem("systemd", f"{name} is {state}", f"start it: {command}")
    if shown.get("UnitFileState") == "disabled":
        text = f"{name} is {state}, but does not start with the machine"
        return problem("systemd", text, f"enable it: systemctl enable {name}")
    return ok("systemd", f"{name} is {state}")


def judge_health(address: str, status: int, health: Mapping[str, object] | None) -> Finding:
    """Judge the response of the server at the status page's address.

    Args:
        address: host and port.
        status: HTTP status; 0 if the server does not speak HTTP.
        health: the decoded response; None if it is not a JSON object.
    """
    if status == 401:  # noqa: PLR2004 - unauthorized
        return unknown("http", f"the server on {address} requires a login")
    if health is None or "alive" not in health:
        advice = "stop that program, or set another http.port"
        return problem("http", f"{address} is used by another program", advice)
    if not health["alive"]:
        advice = "restart it and report the last lines of its log"
        return problem("http", "the daemon runs, but does not make progress", advice)
    if not health.get("ready"):
        stale = health.get("stale_symbols")
        count = len(stale) if isinstance(stale, list) else 0
        broker = "" if health.get("broker_connected") else ", no broker"
        text = f"the daemon runs, but is not ready: {count} stale symbols{broker}"
        return problem("http", text, "wait until it has warmed up, then read its log")
    rest_only = health.get("rest_only_symbols")
    if isinstance(rest_only, list) and rest_only:
        text = f"the daemon runs, but gets candles of {len(rest_only)} symbols late, by REST only"
        return problem("http", text, "read its log: their websocket volumes have another unit")
    return ok("http", f"the daemon runs on {address} and is ready")
