"""``vclr predict``: classes, nearest neighbours or features of new videos."""
