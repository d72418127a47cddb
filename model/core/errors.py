"""Define the errors that candlecast raises on purpose, with their exit codes.

CandlecastError            one clear line for the user; exit code 1
├── ConfigError            wrong configuration or usage; exit code 2
├── BadCandle              a candle with impossible values (also a ValueError)
│   └── OffGrid            one that opens at another time than its timeframe's candles
├── HistoryError           the history database is corrupt, foreign or of another schema
├── ExchangeError          the exchange refused or cannot be reached
│   └── NotOffered         it lacks what the configuration asks for; exit code 2
├── BrokerError            the MQTT broker refused
└── BundleError            a model bundle that must not be opened
    ├── Misfit             trained for other settings than the configured ones; exit code 2
    ├── Unservable         its forecasts must not be published; exit code 2
    ├── Overtaken          the champion changed while a challenger was compared with it
    └── NoChampion         nothing has been promoted yet; exit code 2
"""

from __future__ import annotations


class CandlecastError(Exception):
    """Base of all errors; the message is one line that says what is wrong and what to do."""

    exit_code = 1


class ConfigError(CandlecastError):
    """The configuration or the command line asks for something impossible."""

    exit_code = 2


class BadCandle(CandlecastError, ValueError):  # noqa: N818 - the field says "bad tick", "bad bar"
    """A candle with impossible values; it is counted and dropped, never repaired."""


class OffGrid(BadCandle):
    """A candle that opens between two boundaries of its timeframe."""


class HistoryError(CandlecastError):
    """The history database cannot be used as it is; it is never overwritten."""


class ExchangeError(CandlecastError):
    """The exchange refused or cannot be reached."""


class NotOffered(ExchangeError):  # noqa: N818 - named after the condition
    """The exchange lacks the symbol, timeframe or feature that the configuration asks for."""

    exit_code = 2


class BrokerError(CandlecastError):
    """The MQTT broker refused the connection or a publish."""


class BundleError(CandlecastError):
    """A model bundle does not verify or does not fit."""


class Misfit(BundleError):  # noqa: N818 - named after the condition
    """A model that was trained for other settings than the configured ones."""

    exit_code = 2


class Unservable(BundleError):  # noqa: N818 - named after the condition
    """A model whose forecasts must not be published."""

    exit_code = 2


class Overtaken(BundleError):  # noqa: N818 - named after the condition
    """The champion changed after a challenger was compared with it."""


class NoChampion(BundleError):  # noqa: N818 - named after the condition
    """No model has been promoted yet."""

    exit_code = 2
