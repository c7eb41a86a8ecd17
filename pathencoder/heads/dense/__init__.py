"""Heads that give a value to every pixel: decoder, training, and reading of whole images."""
