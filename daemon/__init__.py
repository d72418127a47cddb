"""Run candlecast: the forecasting service and its command line."""
