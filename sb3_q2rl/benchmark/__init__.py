"""Plots, videos and tables of what was learnt."""
