"""Readers of other libraries' checkpoints, one kind a file; the adapter asks them one after the other."""
