"""What a nursery must not load: it asks for cards while it is imported. No test in here."""

from __future__ import annotations

import torch

HAS_CARDS = torch.cuda.is_available()
