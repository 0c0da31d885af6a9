"""Attacks: another model or other questions, never other metrics. One file each, and the contract in `base`."""
