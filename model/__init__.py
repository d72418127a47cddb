"""What is learned and how it is computed: features, network, engine, history, registry.

Nothing here imports `daemon`, and only `model.lstm_model` imports Keras (lazily).
"""
