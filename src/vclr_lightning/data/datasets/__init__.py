"""Published data sets, by their official annotation files.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> from vclr_lightning.data.datasets import read_ucf101
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "classInd.txt").write_text("1 Run\\r\\n2 Walk\\r\\n")
    >>> _ = (folder / "trainlist01.txt").write_text("Run/v_Run_g08_c01.avi 1\\r\\n")
    >>> _ = (folder / "testlist01.txt").write_text("Walk/v_Walk_g01_c01.avi\\r\\n")
    >>> official = read_ucf101(folder)
    >>> official.classes, [(v.stems[0], v.split, v.label, v.group) for v in official.videos]
    ... # doctest: +NORMALIZE_WHITESPACE
    (('Run', 'Walk'), [('v_Run_g08_c01', 'train', 0, 'v_Run_g08'),
                       ('v_Walk_g01_c01', 'test', 1, 'v_Walk_g01')])
"""

from vclr_lightning.data.datasets.hacs import read_hacs
from vclr_lightning.data.datasets.official import Named, Official
from vclr_lightning.data.datasets.registry import DATASETS, listing_of_dataset, wanted_of
from vclr_lightning.data.datasets.trimmed import read_hmdb51, read_sthv2, read_ucf101
from vclr_lightning.data.datasets.untrimmed import read_activitynet

__all__ = [
    "DATASETS",
    "Named",
    "Official",
    "listing_of_dataset",
    "read_activitynet",
    "read_hacs",
    "read_hmdb51",
    "read_sthv2",
    "read_ucf101",
    "wanted_of",
]
