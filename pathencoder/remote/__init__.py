"""Slides in object stores and on web servers: found, staged to a scratch folder, deleted after."""
