"""Images and slides to feature files."""
