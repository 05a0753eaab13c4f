"""``+experiment=demo``: pretraining and all evaluations on synthetic videos, on one page."""
