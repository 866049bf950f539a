"""A machine that was examined and is sound: what tests of the doctor begin from. No test in here."""

from __future__ import annotations

from workers.examined import Card, Examined, Reached, StoreFacts, Trained
from workers.recipe import Recipe

RECIPE = Recipe(model="resnet18", image_size=64, batch_size=8)
VERSIONS = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.14.1", "torchvision": "0.29.1", "timm": "1.0.31"}
GTX_1060 = Card(0, "GPU-1", "NVIDIA GeForce GTX 1060 6GB", "6.1", "576.02", 6.4, 0.1, 40.0)
RTX_2070 = Card(0, "GPU-2", "NVIDIA GeForce RTX 2070", "7.5", "580.95", 8.6, 0.1, 40.0)
SOUND = Examined(
    host="attic",
    system="linux",
    machine_id="ab" * 8,
    versions=VERSIONS,
    code="0123abcd",
    cpus=4,
    memory_gb=16.0,
    cards=(),
    torch_cuda="13.0",
    torch_architectures=("sm_75", "sm_80", "sm_90", "compute_90"),
    probe_speed=1.0,
    free_disk_gb={"~/.cache/foldfleet": 100.0},
    trained=(Trained(recipe="", device="cpu", bits=32, step_seconds=0.1, image_seconds=0.01),),
    store=StoreFacts(write_mb_per_second=80.0, read_mb_per_second=90.0),
    reached=(Reached(door="10.0.0.1:6379", seconds=0.001),),
    proxies={},
    unix_seconds=1000.0,
)
