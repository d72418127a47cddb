"""Stream an exchange's candles and fetch those that are missing."""
