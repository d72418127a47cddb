"""Define the settings of the model registry and of the nightly retraining."""

from __future__ import annotations

from pydantic import Field

from config.section import Section


class Registry(Section):
    """How many models are kept, and what a challenger must show."""

    keep: int = Field(10, ge=2, le=10_000, description="models kept, champion and previous besides")
    gate_days: float = Field(
        7.0, gt=0, le=365, description="days of candles that a challenger is judged by, at least"
    )
    margin: float = Field(
        0.002, gt=0, le=0.5, description="error ratio that still counts as not inferior"
    )
    shadow: bool = Field(
        default=False, description="whether the newest challenger is tried on live candles"
    )


class Retrain(Section):
    """The nightly job."""

    days: float = Field(30.0, gt=0, le=3_650, description="span of candles, the gate's included")
    threads: int = Field(1, ge=1, le=256, description="cores that training may use")
    on_drift: bool = Field(
        default=True, description="whether the daemon asks for a retrain when drift is seen"
    )
