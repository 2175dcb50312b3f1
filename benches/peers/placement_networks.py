"""Four networks of common shapes with seeded random weights and statistics of their own, for placement.py."""
import torch
from torch import nn
from torch.nn import functional as F


def unit(inputs, outputs, kernel, stride=1, groups=1, activation=None):
    """Convolution, batch normalization, activation."""
    parts = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*parts, *([activation()] if activation else []))


class Basic(nn.Module):
    """ResNet's block: two units and a shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(unit(inputs, outputs, 3, stride, activation=nn.ReLU), unit(outputs, outputs, 3))
        self.shortcut = nn.Identity() if (inputs, stride) == (outputs, 1) else unit(inputs, outputs, 1, stride)

    def forward(self, x):
        return F.relu(self.body(x) + self.shortcut(x))


class Excite(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels, inner, activation, gate):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), activation(), nn.Conv2d(inner, channels, 1), gate()
        )

    def forward(self, x):
        return x * self.gate(x)


class Inverted(nn.Module):
    """An inverted residual: widen, depthwise, squeeze and excite where asked for, narrow."""

    def __init__(self, inputs, outputs, stride, widen, kernel=3, activation=nn.ReLU6, excite=None):
        super().__init__()
        inner = inputs * widen
        self.body = nn.Sequential(
            *([unit(inputs, inner, 1, activation=activation)] if widen > 1 else []),
            unit(inner, inner, kernel, stride, groups=inner, activation=activation),
            *([excite(inner, max(8, inputs // 4))] if excite else []),
            unit(inner, outputs, 1),
        )
        self.adds = (inputs, stride) == (outputs, 1)

    def forward(self, x):
        return x + self.body(x) if self.adds else self.body(x)


def inverted_network(stem, blocks, head, classes, activation, excite=None):
    """Rows of blocks: widen, channels, repeats, stride of the first, kernel."""
    layers, channels = [unit(3, stem, 3, 2, activation=activation)], stem
    for widen, outputs, repeats, stride, kernel in blocks:
        for i in range(repeats):
            layers.append(Inverted(channels, outputs, stride if i == 0 else 1, widen, kernel, activation, excite))
            channels = outputs
    layers.append(unit(channels, head, 1, activation=activation))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(head, classes))


def mobilenet_v2():
    rows = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    return inverted_network(32, [(*row, 3) for row in rows], 1280, 1000, nn.ReLU6)


def resnet18():
    layers, channels = [unit(3, 64, 7, 2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 64
    for outputs, stride in [(64, 1), (128, 2), (256, 2), (512, 2)]:
        layers += [Basic(channels, outputs, stride), Basic(outputs, outputs, 1)]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def silu_net():
    rows = [(1, 16, 1, 1, 3), (4, 24, 2, 2, 3), (4, 40, 2, 2, 5), (4, 80, 2, 2, 3), (4, 112, 1, 1, 5)]
    return inverted_network(16, rows, 256, 100, nn.SiLU, lambda channels, inner: Excite(channels, inner, nn.SiLU, nn.Sigmoid))


def hardswish_net():
    rows = [(1, 16, 1, 1, 3), (4, 24, 2, 2, 3), (4, 40, 2, 2, 5), (4, 80, 2, 2, 3), (4, 112, 1, 1, 5)]
    return inverted_network(16, rows, 256, 100, nn.Hardswish, lambda channels, inner: Excite(channels, inner, nn.ReLU, nn.Hardsigmoid))


# By name: the network, and the sides of its input.
NETWORKS = {
    "mobilenet_v2": (mobilenet_v2, 224),
    "resnet18": (resnet18, 224),
    "silu_se": (silu_net, 96),
    "hardswish_se": (hardswish_net, 96),
}


def images(count, side, generator):
    """Seeded noise with coarse and fine parts, as pictures have."""
    out = torch.zeros(count, 3, side, side)
    for grid, weight in ((4, 1.0), (16, 0.5), (side, 0.2)):
        out += weight * F.interpolate(torch.randn(count, 3, grid, grid, generator=generator), (side, side), mode="bilinear")
    return out.clamp(-2.5, 2.5)


def make(name, path, samples):
    """Writes the network; answers its samples of calibration."""
    network, side = NETWORKS[name]
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(2)
    model = network()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.6, 1.4)
                module.bias.normal_(0, 0.2)
        # The mean over all batches, not a moving one that still remembers where it began.
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        model.train()
        for _ in range(4):
            model(images(8, side, generator))
        model.eval()
        torch.onnx.export(
            model,
            torch.zeros(1, 3, side, side),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
        )
    return images(samples, side, generator).numpy()
