"""Define the manifest of a bundle and check that it fits the configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Final, Self, cast, get_args

from model.core.candle import Timeframe
from model.core.errors import ConfigError, Misfit
from model.features.definitions import FEATURES, Indicators
from model.features.scaler import Target
from model.files.strict_json import (
    as_integer,
    as_list,
    as_number,
    as_object,
    as_text,
    fail,
    parse_object,
)

SCHEMA: Final = 1
MANIFEST: Final = "manifest.json"
VERSION: Final = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LONGEST_WINDOW: Final = 100_000


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        version: its name, e.g. ``20261123T020000Z-3f9a1c``.
        timeframe: ccxt timeframe of the candles it was trained on.
        features: names in the order of the network's inputs.
        indicators: the periods behind them.
        target: what the network forecasts.
        lookback: rows of a window.
        units: units of each LSTM layer.
        symbols: ccxt symbols it was trained on.
        metrics: scores on data it was not trained on, by name.
        trained_from_ms: opening time of the first candle it has seen, Unix milliseconds.
        trained_to_ms: opening time of the last one, validation included.
        data_sha256: hash of those candles.
        libraries: versions it was made with.
        files: SHA-256 of every other file of the bundle, by name.
    """

    version: str
    timeframe: str
    features: tuple[str, ...]
    indicators: Indicators
    target: Target
    lookback: int
    units: tuple[int, ...]
    symbols: tuple[str, ...]
    metrics: Mapping[str, float]
    trained_from_ms: int
    trained_to_ms: int
    data_sha256: str
    libraries: Mapping[str, str]
    files: Mapping[str, str]

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            BundleError: anything else, however slightly.
        """
        raw = parse_object(text, MANIFEST)
        if raw.get("schema") != SCHEMA:
            fail(MANIFEST, f"schema must be {SCHEMA}, not {ascii(raw.get('schema'))[:40]}")
        as_object(raw, MANIFEST, ("schema", *(field.name for field in fields(cls))))
        return cls(
            version=_version(raw),
            timeframe=_timeframe(raw),
            features=_features(raw),
            indicators=_indicators(raw),
            target=_target(raw),
            lookback=_between(raw["lookback"], "lookback", 1, _LONGEST_WINDOW),
            units=tuple(_between(u, "units", 1, 1 << 16) for u in as_list(raw["units"], MANIFEST)),
            symbols=_texts(raw, "symbols"),
            metrics={k: as_number(v, _at("metrics")) for k, v in _items(raw, "metrics")},
            trained_from_ms=as_integer(raw["trained_from_ms"], _at("trained_from_ms")),
            trained_to_ms=as_integer(raw["trained_to_ms"], _at("trained_to_ms")),
            data_sha256=_matching(raw, "data_sha256", _SHA256),
            libraries={k: as_text(v, _at("libraries")) for k, v in _items(raw, "libraries")},
            files={k: _hash(v) for k, v in _items(raw, "files")},
        )


def check_fit(
    manifest: Manifest,
    *,
    timeframe: str,
    features: Sequence[str],
    indicators: Indicators,
    target: str,
    lookback: int,
) -> None:
    """Require that a model was trained for what the configuration asks for.

    Raises:
        Misfit: naming each difference, both values and what to do.
    """
    pairs: list[tuple[str, object, object]] = [
        ("trading.timeframe", manifest.timeframe, timeframe),
        ("model.features", list(manifest.features), list(features)),
        ("model.target", manifest.target, target),
        ("model.lookback_periods", manifest.lookback, lookback),
    ]
    configured = asdict(indicators)
    pairs += [
        (f"indicators.{name}", value, configured[name])
        for name, value in asdict(manifest.indicators).items()
    ]
    differing = [
        f"{key.partition('.')[2]} {_plain(had)} but {key} is {_plain(asked)}"
        for key, had, asked in pairs
        if had != asked
    ]
    if differing:
        msg = (
            f"model {manifest.version} was trained for {', for '.join(differing)}: set what the "
            "model has, or train a model with yours: candlecast train --promote"
        )
        raise Misfit(msg)


def _plain(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _at(key: str) -> str:
    return f"{MANIFEST} {key}"


def _items(raw: Mapping[str, Any], key: str) -> Iterator[tuple[str, Any]]:
    yield from as_object(raw[key], _at(key)).items()


def _texts(raw: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names = tuple(as_text(name, _at(key)) for name in as_list(raw[key], _at(key)))
    if not names or len(set(names)) != len(names):
        fail(_at(key), "must name at least one, and none twice")
    return names


def _matching(raw: Mapping[str, Any], key: str, pattern: re.Pattern[str]) -> str:
    text = as_text(raw[key], _at(key))
    if not pattern.fullmatch(text):
        fail(_at(key), f"has the wrong form: {ascii(text)[:80]}")
    return text


def _version(raw: Mapping[str, Any]) -> str:
    version = _matching(raw, "version", VERSION)
    try:
        made_ms(version)
    except ValueError:
        fail(_at("version"), f"has the wrong form: {version!r}")
    return version


def _hash(value: object) -> str:
    return _matching({"files": value}, "files", _SHA256)


def _between(value: object, key: str, least: int, most: int) -> int:
    number = as_integer(value, _at(key))
    if not least <= number <= most:
        fail(_at(key), f"must be {least} … {most}, not {number}")
    return number


def _timeframe(raw: Mapping[str, Any]) -> str:
    try:
        return Timeframe.parse(as_text(raw["timeframe"], _at("timeframe"))).text
    except ConfigError as error:
        fail(_at("timeframe"), str(error))


def _features(raw: Mapping[str, Any]) -> tuple[str, ...]:
    names = _texts(raw, "features")
    unknown = sorted(set(names) - set(FEATURES))
    if unknown:
        fail(_at("features"), f"this version does not know {ascii(unknown)[:200]}")
    return names


def _target(raw: Mapping[str, Any]) -> Target:
    name = as_text(raw["target"], _at("target"))
    if name not in get_args(Target):
        fail(_at("target"), f"must be one of {get_args(Target)}, not {ascii(name)[:40]}")
    return cast("Target", name)


def _indicators(raw: Mapping[str, Any]) -> Indicators:
    names = [field.name for field in fields(Indicators)]
    values = as_object(raw["indicators"], _at("indicators"), names)
    deviations = as_number(values.pop("bb_std"), _at("indicators bb_std"))
    periods = {key: _between(value, "indicators", 1, 10_000) for key, value in values.items()}
    try:
        return Indicators(**periods, bb_std=deviations)
    except ValueError as error:
        fail(_at("indicators"), str(error))


def made_ms(version: str) -> int:
    """When a version was made, Unix milliseconds, as its name says."""
    made = datetime.strptime(version.partition("-")[0], "%Y%m%dT%H%M%S%z")
    return round(made.timestamp() * 1000)
