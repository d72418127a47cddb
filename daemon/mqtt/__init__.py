"""Publish messages to an MQTT broker."""
