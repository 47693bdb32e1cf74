"""Demonstrations that the paper's own implementation, a fork of PyMARL, recorded: read without unpickling."""
