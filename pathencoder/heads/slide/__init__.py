"""Heads of whole slides: a class for a slide or a patient, from the features of its tiles.

| module | content |
|---|---|
| table | a table of slides, and the feature file of each |
| record | what feature files state about their encoder; the refusal of another |
| bags | the features of all slides in memory, checked as a whole before anything is fitted |
| options, training | settings; the network in training |
| model | the fitted networks, which need numpy alone |
| base, head, fit | the fitted head; from a table to a head |
"""
