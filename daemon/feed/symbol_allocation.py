"""Assign symbols to connections, changing as few connections as possible. No I/O, no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def market_kind(market: Mapping[str, Any]) -> object:
    """What two markets must have in common to share a connection.

    Args:
        market: as ccxt describes it.
    """
    return market["type"], market["subType"]


def assign_symbols(
    current: Sequence[Sequence[str]],
    symbols: Sequence[str],
    kind: Callable[[str], object],
    size: int,
) -> list[list[str]]:
    """Assign symbols to connections: keep what there is, fill free places, then add connections.

    Args:
        current: symbols of each connection that there is.
        symbols: those wanted.
        kind: symbols of different kinds cannot share a connection.
        size: most symbols of a connection.

    Returns:
        Symbols of each connection that there is, perhaps none, and then of new ones.
    """
    wanted = set(symbols)
    assigned = [[symbol for symbol in group if symbol in wanted] for group in current]
    kinds = {at: kind(group[0]) for at, group in enumerate(assigned) if group}
    placed = {symbol for group in assigned for symbol in group}
    for symbol in symbols:
        if symbol in placed:
            continue
        wanted_kind = kind(symbol)
        fitting = (
            at
            for at, group in enumerate(assigned)
            if len(group) < size and kinds.get(at, wanted_kind) == wanted_kind
        )
        at = next(fitting, len(assigned))
        if at == len(assigned):
            assigned.append([])
        assigned[at].append(symbol)
        kinds[at] = wanted_kind
    return assigned
