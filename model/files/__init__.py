"""Read and write the file formats: atomic files, strict JSON, candle CSV and `.keras` archives."""
