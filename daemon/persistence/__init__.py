"""Store what must survive a restart: history, learned state and the last published forecasts."""
