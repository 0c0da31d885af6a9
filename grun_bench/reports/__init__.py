"""What came of a run, for whoever must decide on it: a verdict in plain words and a page to sign. No torch."""
