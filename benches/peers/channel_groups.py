"""Time to find the channel groups of a ResNet-50 and to cut 30 % of each, here and in Torch-Pruning (torch-pruning==1.6.1).

    python benches/peers/channel_groups.py CUT_MODELS   # target/release/examples/cut_models of espalier-deploy

Needs torch, onnx and torch-pruning. Both sides work on the same network and in turn; the least of five rounds counts. Torch-Pruning traces
the network with a run to find the groups, which is part of its time; here the shapes are inferred, which is part of ours.
"""
import copy
import subprocess
import sys
import tempfile
import time

import torch
import torch_pruning
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = 4 * width
        self.a, self.na = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.b, self.nb = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.c, self.nc = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = torch.relu(self.na(self.a(x)))
        y = torch.relu(self.nb(self.b(y)))
        y = self.nc(self.c(y))
        return torch.relu(y + (x if self.shortcut is None else self.shortcut(x)))


def resnet50():
    blocks, inputs = [], 64
    for width, count, stride in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        for i in range(count):
            blocks.append(Bottleneck(inputs, width, stride if i == 0 else 1))
            inputs = 4 * width
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000)).eval()


def theirs(model, example):
    model = copy.deepcopy(model)
    began = time.perf_counter()
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.3,
        ignored_layers=[model[-1]],
    )
    found = time.perf_counter() - began
    pruner.step()
    return found, time.perf_counter() - began, sum(p.numel() for p in model.parameters())


def ours(program, file):
    words = subprocess.run([program, file, "0.3"], check=True, capture_output=True, text=True).stdout.split()
    groups, choose, cut = (float(words[i]) for i in (1, 3, 5))
    return groups, groups + choose + cut


def main():
    torch.manual_seed(1)
    model, example = resnet50(), torch.zeros(1, 3, 224, 224)
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/resnet50.onnx"
        torch.onnx.export(model, (example,), file, dynamo=False, do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE)
        rounds = [(theirs(model, example), ours(sys.argv[1], file)) for _ in range(5)]
    found, whole = min(t[0] for t, _ in rounds), min(t[1] for t, _ in rounds)
    own_found, own_whole = min(o[0] for _, o in rounds), min(o[1] for _, o in rounds)
    print(f"torch-pruning: groups {found * 1e3:.1f} ms, with the cut {whole * 1e3:.1f} ms; parameters left {rounds[0][0][2]}")
    print(f"espalier:      groups {own_found * 1e3:.1f} ms, with the cut {own_whole * 1e3:.1f} ms")
    print(f"ratio:         {found / own_found:.1f} and {whole / own_whole:.1f}")


if __name__ == "__main__":
    main()
