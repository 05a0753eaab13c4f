"""``stage=finetune``: a classifier of videos, TSN, TSM or of clips."""
