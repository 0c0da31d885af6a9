"""What everything else stands on: errors, the registry of plugins, environment and cache, strangers' text and files."""
