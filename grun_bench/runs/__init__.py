"""One run: resolve what was asked, fit, score, attack, file."""
