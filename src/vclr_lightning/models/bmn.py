"""Boundary-matching network (BMN): temporal proposals from snippet features."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vclr_lightning.core.errors import UserError
from vclr_lightning.functional.boundary_matching import matching_weights
from vclr_lightning.functional.precision import full, without_autocast

GROUPS = 4  # of the first convolutions


class BMNOutput(NamedTuple):
    """Probabilities of every position and every proposal.

    ``maps[:, :, d, s]``, regression and classification, is of the proposal that starts at position
    ``s`` and is ``d + 1`` positions long.
    """

    maps: Tensor  # (B, 2, T, T)
    start: Tensor  # (B, T)
    end: Tensor  # (B, T)


class _Sample(torch.autograd.Function):
    """A constant sparse matrix times dense ones, with its transpose for the gradient."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        return _products(matrix, dense)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _products(ctx.transposed, grad), None, None


def _products(matrix: Tensor, dense: Tensor) -> Tensor:
    # One by one: rows of all videos side by side would not stay in the CPU's cache.
    return torch.stack([torch.sparse.mm(matrix, one) for one in dense.contiguous()])


class MatchingConv(nn.Module):
    """The boundary-matching layer fused with the convolution over its samples.

    Both are linear, so the convolution's weights are applied to the ``T`` positions first, and only
    the results are sampled. This equals sampling ``(B, C, N, T, T)`` values and convolving them
    with an ``(N, 1, 1)`` kernel, without holding them.

    Args:
        in_channels: channels of the features.
        out_channels: channels of a proposal.
        positions: T.
        samples: N, samples along a proposal.

    Shape:
        ``(B, in_channels, T)`` to ``(B, cells, out_channels)``, for the proposals that end inside
        the video; their indices are ``duration`` and ``start``, both ``(cells,)``.
    """

    bias: nn.Parameter
    duration: Tensor
    start: Tensor

    def __init__(
        self, *, in_channels: int, out_channels: int, positions: int = 100, samples: int = 32
    ) -> None:
        super().__init__()
        kernel = nn.Conv3d(in_channels, out_channels, (samples, 1, 1))
        # Shaped like the convolution that it replaces, so that weights trained with it load.
        assert isinstance(kernel.bias, nn.Parameter)
        self.weight, self.bias = kernel.weight, kernel.bias
        weights = matching_weights(positions, samples=samples)
        self.register_buffer("duration", weights.duration, persistent=False)
        self.register_buffer("start", weights.start, persistent=False)
        # All samples of a position are adjacent, as in the product with the kernel.
        cell, column = weights.matrix.indices()
        places = torch.stack([cell, column % positions * samples + column // positions])
        sampling = torch.sparse_coo_tensor(
            places, weights.matrix.values(), weights.matrix.shape, check_invariants=False
        )
        for name, matrix in (("rows", sampling), ("columns", sampling.t())):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
                compressed = matrix.coalesce().float().to_sparse_csr()
            # Plain buffers: sparse ones can be neither broadcast nor saved on every backend.
            self.register_buffer(f"{name}_begin", compressed.crow_indices(), persistent=False)
            self.register_buffer(f"{name}_index", compressed.col_indices(), persistent=False)
            self.register_buffer(f"{name}_value", compressed.values(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, positions = x.shape
        channels, _, samples = self.weight.shape[:3]
        # One 1x1 convolution: each position's share in every sample of every output channel.
        kernel = self.weight[..., 0, 0].permute(1, 2, 0).flatten(1)  # (C, N O)
        # Sparse products exist in float32 and float64 only.
        shares = full(x.transpose(1, 2) @ kernel).reshape(batch, positions * samples, channels)
        shape = (len(self.start), samples * positions)
        with without_autocast(shares):
            sampled: Tensor = _Sample.apply(
                shares, self._csr("rows", shape), self._csr("columns", shape[::-1])
            )
        return sampled + self.bias  # (B, cells, O)

    def _csr(self, name: str, shape: tuple[int, int]) -> Tensor:
        begin, index, value = (
            getattr(self, f"{name}_{part}") for part in ("begin", "index", "value")
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            return torch.sparse_csr_tensor(begin, index, value, size=shape, check_invariants=False)


class BMN(nn.Module):
    """Boundary-matching network: start and end probabilities, and the quality of each proposal.

    Args:
        num_features: channels of the snippet features.
        positions: T, number of snippets that a video is resampled to.
        hidden_1d: channels of the base module.
        hidden_2d: channels of the proposal maps.
        hidden_3d: channels after the boundary-matching layer.
        samples: samples along a proposal.

    Shape: ``(B, num_features, T)`` to a :class:`BMNOutput`.

    Raises:
        UserError: features have another number of channels or positions, or channels are not
            divisible into four groups.

    Example:
        >>> model = BMN(num_features=8, positions=10, hidden_1d=8, hidden_2d=4, hidden_3d=8)
        >>> output = model(torch.randn(2, 8, 10))
        >>> output.maps.shape, output.start.shape
        (torch.Size([2, 2, 10, 10]), torch.Size([2, 10]))
    """

    def __init__(
        self,
        *,
        num_features: int,
        positions: int = 100,
        hidden_1d: int = 256,
        hidden_2d: int = 128,
        hidden_3d: int = 512,
        samples: int = 32,
    ) -> None:
        super().__init__()
        for name, value in (("num_features", num_features), ("hidden_1d", hidden_1d)):
            if value < 1 or value % GROUPS:
                raise UserError(
                    f"{name}={value} of the boundary-matching network must be a multiple of "
                    f"{GROUPS}, the groups of its convolutions"
                    + ("; take features of another layer" if name == "num_features" else "")
                )
        self.num_features, self.positions = num_features, positions
        self.base = nn.Sequential(
            nn.Conv1d(num_features, hidden_1d, 3, padding=1, groups=GROUPS),
            nn.ReLU(),
            nn.Conv1d(hidden_1d, hidden_1d, 3, padding=1, groups=GROUPS),
            nn.ReLU(),
        )
        self.start = _boundary_head(hidden_1d)
        self.end = _boundary_head(hidden_1d)
        self.proposal = nn.Sequential(nn.Conv1d(hidden_1d, hidden_1d, 3, padding=1), nn.ReLU())
        self.matching = MatchingConv(
            in_channels=hidden_1d, out_channels=hidden_3d, positions=positions, samples=samples
        )
        self.reduce = nn.Linear(hidden_3d, hidden_2d)
        self.maps = nn.Sequential(
            nn.Conv2d(hidden_2d, hidden_2d, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden_2d, hidden_2d, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden_2d, 2, 1),
        )

    def forward(self, features: Tensor) -> BMNOutput:
        if features.shape[1:] != (self.num_features, self.positions):
            raise UserError(
                f"features of shape {tuple(features.shape[1:])} do not fit this network: it takes "
                f"{self.num_features} channels at {self.positions} positions"
            )
        base = self.base(features)
        cells = torch.relu(self.matching(self.proposal(base)))  # (B, cells, hidden_3d)
        cells = torch.relu(self.reduce(cells))  # (B, cells, hidden_2d)
        # A proposal past the end of the video samples nothing; only biases reach its cell.
        empty = torch.relu(self.reduce(torch.relu(self.matching.bias)))
        grid = empty.expand(len(features), self.positions, self.positions, -1).clone()
        grid[:, self.matching.duration, self.matching.start] = cells.to(grid.dtype)
        maps = self.maps(grid.permute(0, 3, 1, 2).contiguous())
        # In half precision a probability near 1 would round to 1, and log(1 - p) would be lost.
        return BMNOutput(
            maps=torch.sigmoid(full(maps)),
            start=torch.sigmoid(full(self.start(base)))[:, 0],
            end=torch.sigmoid(full(self.end(base)))[:, 0],
        )


def _boundary_head(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(channels, channels, 3, padding=1, groups=GROUPS),
        nn.ReLU(),
        nn.Conv1d(channels, 1, 1),
    )
