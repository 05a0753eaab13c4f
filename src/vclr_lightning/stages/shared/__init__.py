"""What several stages need: data, networks, trainer, resume, launched processes, notes."""
