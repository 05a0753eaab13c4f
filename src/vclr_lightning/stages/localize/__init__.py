"""``stage=localize``: find actions in untrimmed videos by BMN."""
