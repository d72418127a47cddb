"""Define the files that the daemon and the nightly job exchange."""
