"""Configuration: `config.yaml` and the models that check it."""
