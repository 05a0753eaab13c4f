"""Build a manifest from folders of videos, list files or Kinetics CSV files."""
