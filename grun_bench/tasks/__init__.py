"""Task files, data sets and the toy world. No torch."""
