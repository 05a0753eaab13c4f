"""A backbone: a few 3D convolutions."""

from torch import nn


class SmallVideoNet(nn.Module):
    clip_dims = 3  # takes (N, C, T, H, W); 2 for networks of images

    def __init__(self, *, width=16):
        super().__init__()
        self.num_features = 2 * width
        self.body = nn.Sequential(
            nn.Conv3d(3, width, (1, 5, 5), stride=(1, 2, 2), padding=(0, 2, 2), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.Conv3d(width, 2 * width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm3d(2 * width),
            nn.ReLU(),
        )

    def forward_map(self, x):  # only for objectives that read maps
        return self.body(x)

    def forward(self, x):
        return self.body(x).mean((2, 3, 4))
