"""How released code of the field computes things: the same structure in our own words, one file per group.

They are here to be measured against. Nothing in the package imports them.
"""
