"""``stage=features``: frozen features of videos, extracted once and kept."""
