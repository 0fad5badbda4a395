"""Synthetic faces, losses and the training loops."""
