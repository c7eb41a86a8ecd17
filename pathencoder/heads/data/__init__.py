"""Labelled images in: a folder per class, a table, or lists. One file a form."""
