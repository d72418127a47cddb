"""Suggest the ccxt symbol for a name in another spelling."""

from __future__ import annotations

import re
from typing import Final

_QUOTES: Final = (
    *("FDUSD", "USDT", "USDC", "BUSD", "TUSD", "USDE", "USD1"),
    *("DAI", "USD", "EUR", "GBP", "JPY", "KRW", "TRY", "BRL", "AUD", "BTC", "ETH", "BNB"),
)
_PERPETUAL: Final = r"(?P<swap>[-_.]?(?:SWAP|PERP|PERPETUAL)|\.P)?"
_SEPARATED: Final = re.compile(
    rf"(?P<base>[A-Z0-9]+)[-_.](?P<quote>(?!SWAP|PERP)[A-Z0-9]{{3,}}?){_PERPETUAL}"
)
_JOINED: Final = re.compile(rf"(?P<base>[A-Z0-9]{{2,}}?)(?P<quote>{'|'.join(_QUOTES)}){_PERPETUAL}")


def likely_symbol(text: str) -> str | None:
    """Return the ccxt symbol that a name in another spelling probably means.

    Returns:
        None if the text may already be a ccxt symbol, or resembles none.

    >>> [likely_symbol(name) for name in ("btc/usdt", "BTCUSDT", "BTC-USDT", "eth_btc")]
    ['BTC/USDT', 'BTC/USDT', 'BTC/USDT', 'ETH/BTC']
    >>> [likely_symbol(name) for name in ("BTC-USDT-SWAP", "BTC-USD-SWAP", "BTCUSDT.P")]
    ['BTC/USDT:USDT', 'BTC/USD:BTC', 'BTC/USDT:USDT']
    >>> [likely_symbol(name) for name in ("BTC/USDT", "omni/USDT", "BTC-PERP", "")]
    [None, None, None, None]
    """
    upper = text.strip().upper()
    base, slash, rest = text.partition("/")
    if slash:
        # Bases in lower case exist, quote currencies do not.
        misspelt = base and rest and rest != rest.upper() and rest == rest.lower()
        return upper if misspelt else None
    found = _JOINED.fullmatch(upper) or _SEPARATED.fullmatch(upper)
    if found is None:
        return None
    pair = f"{found['base']}/{found['quote']}"
    if not found["swap"]:
        return pair
    return f"{pair}:{found['base'] if found['quote'] == 'USD' else found['quote']}"
