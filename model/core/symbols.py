"""Convert ccxt symbols to file names and to levels of MQTT topics."""

from __future__ import annotations

from urllib.parse import quote, unquote


def topic_level(symbol: str) -> str:
    """Spell a symbol for MQTT topics: ``BTC/USDT:USDT`` becomes ``BTC-USDT-USDT``.

    This is not reversible, so a configuration must not hold two symbols with the same level.
    """
    return symbol.replace("/", "-").replace(":", "-")


def file_name(symbol: str) -> str:
    """Spell a symbol for the names of candle files; `symbol_of` reads it back.

    Base and quote are separated by ``-``. A ``-`` within them, and every character that is not a
    letter, a digit, ``_``, ``.`` or ``~``, is percent-encoded.

    >>> file_name("BTC/USDT:USDT-261225"), file_name("XYZ-TSLA/USDC:USDC")
    ('BTC-USDT-USDT-261225', 'XYZ%2DTSLA-USDC-USDC')
    """
    base, _, rest = symbol.partition("/")
    currency, _, contract = rest.partition(":")
    # The last part keeps its "-": what follows the second one belongs to it.
    parts = [_encoded(base), _encoded(currency), *([quote(contract, safe="")] if contract else [])]
    return "-".join(parts)


def symbol_of(name: str) -> str | None:
    """Return the symbol that `file_name` spelled this way; None for any other text.

    >>> symbol_of("XYZ%2DTSLA-USDC-USDC")
    'XYZ-TSLA/USDC:USDC'
    """
    base, *rest = (unquote(part) for part in name.split("-", 2))
    if not base or not all(rest) or not rest:
        return None
    return f"{base}/{':'.join(rest)}"


def _encoded(currency: str) -> str:
    text = quote(currency, safe="").replace("-", "%2D")
    # A leading dot would hide the file.
    return f"%2E{text[1:]}" if text.startswith(".") else text
