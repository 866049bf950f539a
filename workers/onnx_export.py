"""The whole ensemble as one ONNX file, kept only when onnxruntime's logits agree with torch's.

Inputs: `images_<size>`, uint8 [n, 3, size, size], one for each image size that the members have. Outputs: `logits`
and `probabilities`, float32 [n, classes]. n is free.

torch's TorchScript-based exporter is used on purpose: it needs `onnx` alone, gives the same logits and is about ten
times as fast on an EfficientNet as the one based on torch.export, which needs onnxscript. Its notice of
deprecation, and the tracer's about the shape checks of some networks, are silenced here and nowhere else: the
comparison at several batch sizes is what says whether the trace is right.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from workers.predictor import Predictor

OPSET = 17
TOLERANCE = 1e-4  # of a logit, or of the largest logit where that is above 1
LIMIT_BYTES = 1_900_000_000  # an ONNX file with its weights inside cannot pass 2 GB
_BATCHES = (1, 2, 5)


@dataclass(frozen=True)
class OnnxExport:
    """The file's bytes, or None with the reason; `note` is a sentence for people either way."""

    data: bytes | None
    note: str


class _Ensemble(nn.Module):
    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.sizes = predictor.sizes
        self.models = nn.ModuleList([member.model for member in predictor.members])
        self.members = predictor.members

    def forward(self, *batches: Tensor) -> tuple[Tensor, Tensor]:
        by_size = dict(zip(self.sizes, batches, strict=True))
        logits = torch.stack([member.model(member.normalise(by_size[member.image_size])) for member in self.members])
        mean = logits.sum(dim=0) / len(self.members)
        return mean, mean.softmax(dim=1)


def export_onnx(predictor: Predictor, threads: int = 1, limit_bytes: int = LIMIT_BYTES) -> OnnxExport:
    """Export and check `predictor`, which must be on the CPU. Never fails a bundle: says why there is no file."""
    assert predictor.device.type == "cpu", "the trace is made on the CPU, whatever the fold trained on"
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        return OnnxExport(None, f"not made: {' and '.join(missing)} not installed (pip install onnx onnxruntime)")
    if _weight_bytes(predictor) > limit_bytes:
        return OnnxExport(None, f"not made: the weights take more than the {limit_bytes / 1e9:.1f} GB of one ONNX file")
    try:
        data = _with_classes(_traced(predictor), predictor)
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        return OnnxExport(None, f"not made: torch cannot export these networks ({reason})")
    difference = largest_difference(data, predictor, threads)
    if not difference <= TOLERANCE:
        return OnnxExport(None, f"not kept: its logits differ from torch's by {difference:.1e} (limit {TOLERANCE:.0e})")
    return OnnxExport(data, f"made; onnxruntime's logits agree with torch's within {TOLERANCE:.0e}")


def _weight_bytes(predictor: Predictor) -> int:
    tensors = [tensor for member in predictor.members for tensor in member.model.state_dict().values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _traced(predictor: Predictor) -> bytes:
    inputs = [f"images_{size}" for size in predictor.sizes]
    outputs = ["logits", "probabilities"]
    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            _Ensemble(predictor).eval(),
            tuple(_random_batch(size, 2) for size in predictor.sizes),
            path,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={name: {0: "n"} for name in inputs + outputs},
            opset_version=OPSET,
            dynamo=False,
        )
        return path.read_bytes()


def _with_classes(data: bytes, predictor: Predictor) -> bytes:
    """The file with the class names written into it: a model without them is a riddle."""
    import onnx

    model = onnx.load_model_from_string(data)
    onnx.helper.set_model_props(model, {"classes": json.dumps(predictor.classes, ensure_ascii=False)})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def largest_difference(data: bytes, predictor: Predictor, threads: int = 1) -> float:
    """Largest difference of a logit between onnxruntime and torch on random photos at several batch sizes.

    Relative to the largest logit where that is above 1.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in _BATCHES:
        batches = {size: _random_batch(size, count) for size in predictor.sizes}
        expected = predictor.batch_logits(batches)
        found = session.run(["logits"], {f"images_{size}": batch.numpy() for size, batch in batches.items()})[0]
        if found.shape != expected.shape or not np.isfinite(found).all():
            return float("inf")
        scale = max(1.0, float(np.abs(expected).max()))
        worst = max(worst, float(np.abs(found - expected).max()) / scale)
    return worst


def _random_batch(size: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
