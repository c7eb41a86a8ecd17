"""Where slides come from: one file a source. `open_source` finds the one that a name means."""
