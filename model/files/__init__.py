"""Read and write file formats safely."""
