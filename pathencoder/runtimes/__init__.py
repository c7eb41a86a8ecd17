"""Runtimes other than torch: the files that they run, which one `encode` takes, and the export."""
