"""Store candles, forecasts and calibration states in SQLite and read them back."""
