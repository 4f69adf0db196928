"""Pretrained weights in and out: files of other libraries, read strictly and written whole."""
