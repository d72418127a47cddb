"""The running service: feed, windows, batches, publishing, accounts, pages."""
