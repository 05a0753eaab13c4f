"""A retrieval as tables: confusions, classes, and every query's neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vclr_lightning.evaluation.confusions import class_name
from vclr_lightning.results import Column, Table

if TYPE_CHECKING:
    from vclr_lightning.evaluation.retrieval_result import Retrieval
    from vclr_lightning.evaluation.store import FeatureStore

_CONFUSIONS = 12  # pairs of classes on the page


def retrieval_tables(
    result: Retrieval, train: FeatureStore, test: FeatureStore, *, listed: int
) -> list[Table]:
    """Return confusions, classes and every query's neighbours."""
    classes = test.classes
    recalls = [
        Column(f"r{k}", f"R@{k}", unit="%", wide=number > 1) for number, k in enumerate(result.ks)
    ]
    return [
        Table(
            title="Most frequent confusions",
            shown="page",
            columns=["class", "nearest is of", "videos", Column("of the class, %", unit="%")],
            rows=[
                (class_name(m.label, classes), class_name(m.predicted, classes), m.count, m.share)
                for m in result.confusions()[:_CONFUSIONS]
            ],
        ),
        Table(
            title="Classes",
            file="retrieval_classes",
            lowest=recalls[0].name,
            columns=[
                "class",
                Column("test_videos", "test videos"),
                Column("training_videos", "training videos"),
                *recalls,
                Column("taken_for", "nearest is most often of"),
                Column("taken_for_share", "of the class, %", unit="%", wide=True),
            ],
            rows=[
                (
                    class_name(row.label, classes),
                    row.queries,
                    row.gallery,
                    *row.recall.values(),
                    class_name(row.predicted, classes) if row.predicted >= 0 else "",
                    row.predicted_share,
                )
                for row in result.by_class()
            ],
        ),
        _neighbour_table(result, train, test, listed=listed),
    ]


def _neighbour_table(
    result: Retrieval, train: FeatureStore, test: FeatureStore, *, listed: int
) -> Table:
    """Return each query with its nearest videos.

    ``first_hit`` is the rank of the nearest video of its class; 0: none among those compared.
    """
    count = min(listed, result.position.shape[1])
    ranks = range(1, count + 1)
    columns = [f"{what}_{i}" for i in ranks for what in ("neighbour", "class", "similarity")]
    paths, names = train.paths, [class_name(n, test.classes) for n in result.gallery_label.tolist()]
    rows = []
    for path, label, first, positions, similarities in zip(
        test.paths,
        result.query_label.tolist(),
        result.first_hit.tolist(),
        result.position[:, :count].tolist(),
        result.similarity[:, :count].tolist(),
        strict=True,
    ):
        row = [path, class_name(label, test.classes), first]
        for p, value in zip(positions, similarities, strict=True):
            row += [paths[p], names[p], f"{value:.6f}"] if p >= 0 else ["", "", ""]
        rows.append(row)
    return Table(
        file="retrieval", shown="file", columns=["query", "class", "first_hit", *columns], rows=rows
    )
