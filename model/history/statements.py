"""Define the SQL statements of the history.

Rows are ordered by time, not by symbol: candles that close together are stored side by side, so a
flush of 1,000 symbols writes about 20 pages instead of 1,000, and pruning frees whole pages. One
symbol is read by stepping along the grid of its timeframe. Seconds and delays instead of
millisecond times, and ids instead of names, keep a candle at about 70 bytes.

The outcome of a forecast is not stored a second time: it is the first revision of the candle that
opened when the forecast was published.
"""

from __future__ import annotations

from typing import Final

# For the first candle of a period.
INSERT_CANDLE: Final = "INSERT INTO candle VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

# A candle equal to the newest revision is not inserted: backfill overlaps on purpose. Of two
# revisions received within one millisecond the later one stays.
INSERT_REVISION: Final = """
WITH new(market, open_s, symbol, delay_ms, open, high, low, close, volume, final_by, filled) AS (
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
INSERT OR REPLACE INTO candle SELECT * FROM new
WHERE NOT EXISTS (
    SELECT 1 FROM (
        SELECT open, high, low, close, volume FROM candle
        WHERE market = new.market AND open_s = new.open_s AND symbol = new.symbol
        ORDER BY delay_ms DESC LIMIT 1) AS known
    WHERE known.open = new.open AND known.high = new.high AND known.low = new.low
    AND known.close = new.close AND known.volume = new.volume)
"""

# A forecast is published once; a repeated insert changes nothing.
INSERT_FORECAST: Final = """
INSERT INTO forecast VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""

NEWEST_CANDLE: Final = "SELECT max(open_s) FROM candle WHERE market = ?"
NEWEST_FORECAST: Final = "SELECT max(close_s) FROM forecast WHERE market = ?"

SELECT_CANDLES: Final = """
WITH RECURSIVE slot(open_s) AS (
    SELECT :newest_s UNION ALL SELECT open_s - :step_s FROM slot WHERE open_s > :oldest_s)
SELECT c.open_s, c.delay_ms, c.open, c.high, c.low, c.close, c.volume, c.final_by, c.filled
FROM slot CROSS JOIN candle AS c
    ON c.market = :market AND c.open_s = slot.open_s AND c.symbol = :symbol
ORDER BY c.open_s, c.delay_ms
"""

COUNT_OFF_GRID: Final = """
SELECT count(*) FROM candle WHERE market = ? AND open_s >= ? AND (open_s - ?) % ? != 0
"""

SELECT_FORECASTS: Final = """
WITH RECURSIVE slot(close_s) AS (
    SELECT :newest_s UNION ALL SELECT close_s - :step_s FROM slot WHERE close_s > :oldest_s)
SELECT f.close_s, f.last_close, f.predicted_close, f.lower, f.upper
FROM slot CROSS JOIN forecast AS f
    ON f.market = :market AND f.close_s = slot.close_s AND f.symbol = :symbol
ORDER BY f.close_s
"""

SELECT_OUTCOMES: Final = """
SELECT s.name, f.close_s, f.last_close, f.predicted_close, f.lower, f.upper, (
    SELECT c.close FROM candle AS c
    WHERE c.market = f.market AND c.open_s = f.close_s AND c.symbol = f.symbol
    ORDER BY c.delay_ms LIMIT 1)
FROM forecast AS f JOIN symbol AS s ON s.id = f.symbol
WHERE f.market = ? AND f.close_s > ? ORDER BY f.close_s
"""

# One state per day, replaced until the day is over: `replay` starts from the last one.
REPLACE_CALIBRATION: Final = "INSERT OR REPLACE INTO calibration VALUES (?, ?, ?, ?, ?, ?)"

REPLACE_SCALER: Final = "INSERT OR REPLACE INTO scaler VALUES (?, ?, ?, ?, ?)"

SELECT_NEWEST_STATES: Final = """
SELECT name, state FROM (
    SELECT s.name, (
        SELECT t.state FROM {table} AS t WHERE t.market = ? AND t.model = ? AND t.symbol = s.id
        ORDER BY t.{when} DESC LIMIT 1) AS state
    FROM symbol AS s)
WHERE state IS NOT NULL
"""

# Each pair finds the last opening of a slice, then deletes up to it.
PRUNE_CANDLES: Final = (
    "SELECT open_s FROM candle WHERE market = ? AND open_s < ? ORDER BY 1 LIMIT 1 OFFSET ?",
    "DELETE FROM candle WHERE market = ? AND open_s < ?",
)
PRUNE_FORECASTS: Final = (
    "SELECT close_s FROM forecast WHERE market = ? AND close_s < ? ORDER BY 1 LIMIT 1 OFFSET ?",
    "DELETE FROM forecast WHERE market = ? AND close_s < ?",
)

# A model that has not served for that long starts from its bundle again.
PRUNE_CALIBRATION: Final = "DELETE FROM calibration WHERE day < ?"
PRUNE_SCALERS: Final = """
DELETE FROM scaler WHERE fitted_ms < ? AND NOT EXISTS (
    SELECT 1 FROM calibration AS c
    WHERE c.market = scaler.market AND c.model = scaler.model AND c.symbol = scaler.symbol)
"""

SELECT_REVISIONS: Final = """
WITH RECURSIVE slot(open_s) AS (
    SELECT :from_s UNION ALL SELECT open_s + :step_s FROM slot WHERE open_s + :step_s < :until_s)
SELECT c.open_s, c.delay_ms, c.open, c.high, c.low, c.close, c.volume, c.final_by, c.filled
FROM slot CROSS JOIN candle AS c
    ON c.market = :market AND c.open_s = slot.open_s AND c.symbol = :symbol
ORDER BY c.open_s, c.delay_ms
"""

SELECT_FORECAST_GROUPS: Final = """
SELECT s.name, m.version, m.sha256, min(f.close_s), max(f.close_s), count(*)
FROM forecast AS f JOIN symbol AS s ON s.id = f.symbol JOIN model AS m ON m.id = f.model
WHERE f.market = ? AND f.close_s >= ? AND f.close_s < ? GROUP BY f.symbol, f.model
ORDER BY s.name, m.version
"""

SELECT_PUBLISHED: Final = """
WITH RECURSIVE slot(close_s) AS (
    SELECT :from_s UNION ALL SELECT close_s + :step_s FROM slot WHERE close_s + :step_s < :until_s)
SELECT f.close_s, f.delay_ms, f.last_close, f.predicted_close, f.lower, f.upper, f.threshold,
    f.short_ppb, f.long_ppb, f.outside_ppb, f.learnt,
    r.level, r.gamma, r.min_n, r.threshold, r.multiple
FROM slot CROSS JOIN forecast AS f
    ON f.market = :market AND f.close_s = slot.close_s AND f.symbol = :symbol
LEFT JOIN rules AS r ON r.id = f.rules
WHERE f.model = :model ORDER BY f.close_s
"""

SELECT_STATES: Final = """
SELECT 1000 * saved_s, state FROM calibration
WHERE market = :market AND model = :model AND symbol = :symbol ORDER BY day
"""

SELECT_SCALERS: Final = """
SELECT fitted_ms, state FROM scaler
WHERE market = :market AND model = :model AND symbol = :symbol ORDER BY fitted_ms
"""
