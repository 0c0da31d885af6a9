"""Records, result files and the folder they lie in. No torch."""
