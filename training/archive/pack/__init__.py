"""Slides of a manifest to shards of tiles.

`settings` says how; `layout` assigns slides to shards; `slide` reads the tiles of one slide, which
`choose` has chosen; `group` writes the shards of a group of slides; `run` does all groups, here or
on a cluster; `tables` lists what was written; `verify` reads it again.
"""
