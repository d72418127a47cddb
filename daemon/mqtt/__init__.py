"""Publish forecasts and the state of this instance to an MQTT broker."""
