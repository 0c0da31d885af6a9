"""Settings of a method found by trials on rows that are not scored."""
