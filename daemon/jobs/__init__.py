"""Run the batch jobs: fetch candles, retrain, evaluate and manage models."""
