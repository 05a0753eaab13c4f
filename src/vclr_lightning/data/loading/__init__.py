"""From a manifest to batches: data sets, loader, workers, order of videos, rejections."""
