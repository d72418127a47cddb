"""Define the files in the state folder that the daemon and the nightly job exchange."""
