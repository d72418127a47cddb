"""Settings turned into the plain values that everything else takes."""

from __future__ import annotations

import logging

from config.serving import is_loopback
from config.settings import Settings
from daemon.control.model_loader import ModelRequirements
from daemon.mqtt.broker import Broker
from daemon.runtime.tls import client_context, server_context
from daemon.web.auth import PageAccess
from model.features.definitions import Indicators
from model.forecasts.rules import Rules
from model.stats.promotion_gate import GateRules

log = logging.getLogger("candlecast.factories")


def indicators_of(settings: Settings) -> Indicators:
    """The indicator periods as the model room wants them."""
    return Indicators(**settings.indicators.model_dump())


def rules_of(settings: Settings) -> Rules:
    """What intervals and probabilities shall be."""
    signal = settings.signal
    return Rules(
        level=settings.calibration.level,
        min_n=settings.accuracy.min_n,
        threshold=None if signal.threshold == "auto" else signal.threshold,
        multiple=signal.multiple,
    )


def recipe_of(settings: Settings) -> ModelRequirements:
    """What the champion must be for, and how it runs."""
    return ModelRequirements(
        registry=settings.registry_dir,
        symbols=settings.trading.symbols,
        timeframe=settings.trading.timeframe,
        features=settings.model.feature_names,
        indicators=indicators_of(settings),
        target=settings.model.target,
        lookback=settings.model.lookback_periods,
        device=settings.inference.device,
        rules=rules_of(settings),
        fit_unknown=settings.model.unknown_symbols == "fit_on_warmup",
    )


def gate_of(settings: Settings) -> GateRules:
    """What a challenger must show."""
    registry = settings.registry
    return GateRules(registry.gate_days, registry.margin)


def broker_of(settings: Settings) -> Broker:
    """The broker of a configuration, its password read from where it is kept.

    Raises:
        ConfigError: a file cannot be used.
    """
    mqtt, tls = settings.mqtt, settings.mqtt.tls
    authority = None if tls.trusts_machine else tls.ca_file
    context = (
        None
        if tls.ca_file is None
        else client_context(authority, tls.certificate_file, tls.key_file)
    )
    password = mqtt.read_password()
    if password is not None and context is None and not is_loopback(mqtt.host):
        log.warning(
            "the password for %s travels unencrypted; mqtt.tls.ca_file changes that",
            mqtt.host,
        )
    return Broker(
        mqtt.host, mqtt.port, mqtt.version, mqtt.username, password, mqtt.keepalive_s, context
    )


def guard_of(settings: Settings) -> PageAccess:
    """Login and TLS of the pages.

    Raises:
        ConfigError: a file cannot be used.
    """
    http = settings.http
    certificate, key = http.tls.certificate_file, http.tls.key_file
    tls = None if certificate is None or key is None else server_context(certificate, key)
    return PageAccess(http.read_login(), tls, http.names)
