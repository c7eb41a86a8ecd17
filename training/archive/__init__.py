"""From an archive to shards: the manifest of all slides, their sources, their download.

`python -m training.archive --help` lists the commands.
"""
