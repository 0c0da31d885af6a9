"""What a person sees: results, listings and verifications as tables. No torch."""
