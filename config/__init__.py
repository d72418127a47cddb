"""Read and validate the configuration."""
