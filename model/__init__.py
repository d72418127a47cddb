"""Hold everything that is computed: features, the network, inference, history and the registry.

Nothing here imports `daemon`. Only `model.lstm_model` imports Keras, on first use.
`tests/project/rooms.py` lists which room may import which.
"""
