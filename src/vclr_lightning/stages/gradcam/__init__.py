"""``stage=gradcam``: where a network looks."""
