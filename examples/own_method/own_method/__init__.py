"""A project of one's own: an objective with a queue, a sampler that makes labels, a backbone."""
