"""Evaluation: the tables that say how good the avatars are, on photos and on synthetic faces."""
