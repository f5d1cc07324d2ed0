"""Random parameters that a test can tell apart from those that were never loaded, sent or applied."""

import torch


def roughen(model: torch.nn.Module, seed: int = 0) -> None:
    """Move biases and norms off the 0 and 1 they start from."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
