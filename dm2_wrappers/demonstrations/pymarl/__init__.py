"""Reads recordings of the paper's own implementation, a fork of PyMARL, without unpickling them."""
