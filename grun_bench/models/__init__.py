"""A model: load, prompt, forward, score, generate."""
