"""Pretrained models that Python packages carry, written as Hugging Face checkpoints on first use.

There is no model hub behind this: what is needed is in the lock, and each file is known by its SHA-256.
"""
