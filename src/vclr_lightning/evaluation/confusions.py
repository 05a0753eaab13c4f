"""Classes by name, and which are mistaken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Confusion:
    """Videos of one class that are predicted as another.

    Attributes:
        label: true class.
        predicted: predicted class: of a classifier, or of the nearest video.
        count: how many.
        share: of the videos of the class.
    """

    label: int
    predicted: int
    count: int
    share: float


def confusions(label: Tensor, predicted: Tensor) -> list[Confusion]:
    """Return the pairs of classes that are confused, the most frequent first.

    Args:
        label: true classes.
        predicted: predicted classes, -1 for none.

    Shape:
        both ``(M,)``

    Example:
        >>> import torch
        >>> confusions(torch.tensor([0, 0, 1]), torch.tensor([1, 0, 1]))
        [Confusion(label=0, predicted=1, count=1, share=0.5)]
    """
    labels = label.tolist()
    total = Counter(labels)
    pairs = Counter((a, b) for a, b in zip(labels, predicted.tolist(), strict=True))
    found = [Confusion(a, b, n, n / total[a]) for (a, b), n in pairs.items() if b not in (a, -1)]
    return sorted(found, key=lambda one: (-one.count, -one.share, one.label, one.predicted))


def class_name(label: int, classes: Sequence[str]) -> str:
    """Return the name of a class, or its number where it has none.

    Example:
        >>> class_name(1, ["run", "walk"]), class_name(7, [])
        ('walk', 'class 7')
    """
    return classes[label] if label < len(classes) else f"class {label}"
