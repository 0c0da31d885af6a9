"""Unlearned models as folders that others' programs load without this package."""
