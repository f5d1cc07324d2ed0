"""Audio codecs: speech to a few tokens per frame and back, behind one interface."""
