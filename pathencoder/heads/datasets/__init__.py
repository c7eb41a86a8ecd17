"""Readers of public data sets, from a folder that the user downloaded. One file a set.

| module | content |
|---|---|
| public_set | what is known of a set: layout, classes, parts, groups, licence, notes |
| catalogue, open | the sets by name; `pathencoder.open_dataset` |
| places, counts | the folder and its files; what was found against what was published |
| images, hdf5, labels, polygons | readers by form, which the sets share |
| pcam, nct_crc, bach, breakhis, mhist | images with a class |
| glas, monuseg, pannuke, lizard, consep | images with outlines |
| bcdata, midogpp | images with points |

A new set is one file with a `PublicSet`, and one row of `catalogue`.
"""
