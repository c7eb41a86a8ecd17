"""Encoders and features in the tools of others. Each module needs the tool of its name."""
