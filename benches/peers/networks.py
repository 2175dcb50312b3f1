"""The networks of `espalier new` and of transformer_onnx.py, layer by layer, in PyTorch."""
import torch
from torch import nn
from torch.nn import functional as F
from torch.ao.nn.quantized import FloatFunctional


class Unit(nn.Module):
    """Convolution, batch normalization, activation."""

    def __init__(self, inputs, outputs, kernel, stride=1, padding=0, groups=1, activation=nn.ReLU):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = activation() if activation else nn.Identity()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))

    def parts_to_fuse(self):
        return ["conv", "bn", "act"] if isinstance(self.act, nn.ReLU) else ["conv", "bn"]


class BasicBlock(nn.Module):
    """Two units and the shortcut without parameters (option A)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = Unit(inputs, outputs, 3, stride, 1)
        self.second = Unit(outputs, outputs, 3, 1, 1, activation=None)
        self.stride, self.more = stride, outputs - inputs
        # A plain addition unless the network is quantized.
        self.sum = FloatFunctional()

    def forward(self, x):
        shortcut = x
        if self.stride == 2:
            shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return self.sum.add_relu(self.second(self.first(x)), shortcut)


class ResNet(nn.Module):
    """The residual networks for CIFAR: 3 blocks a stage make ResNet-20, 9 make ResNet-56."""

    def __init__(self, blocks, width=1):
        super().__init__()
        layers, channels = [Unit(3, 16 * width, 3, 1, 1)], 16 * width
        for stage, outputs in enumerate((16 * width, 32 * width, 64 * width)):
            for block in range(blocks):
                layers.append(BasicBlock(channels, outputs, 2 if stage > 0 and block == 0 else 1))
                channels = outputs
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(channels, 10)

    def forward(self, x):
        return self.linear(self.layers(x).mean((2, 3)))


class Separable(nn.Module):
    """A stem and pairs of depthwise and pointwise units: MobileNetV1, DS-CNN."""

    def __init__(self, stem, pairs, classes, activation):
        super().__init__()
        layers, channels = [stem], stem.conv.out_channels
        for outputs, stride in pairs:
            layers.append(Unit(channels, channels, 3, stride, 1, groups=channels, activation=activation))
            layers.append(Unit(channels, outputs, 1, activation=activation))
            channels = outputs
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x):
        return self.classifier(self.layers(x).mean((2, 3)))


def mobilenet_v1(width=0.5, classes=10):
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    stem = Unit(3, int(32 * width), 3, 2, 1, activation=nn.ReLU6)
    return Separable(stem, [(int(c * width), s) for c, s in blocks], classes, nn.ReLU6)


class SamePadding(nn.Module):
    """The stem of DS-CNN: a 10x4 kernel at stride 2 on 49x10, padded as TensorFlow's SAME."""

    def __init__(self, unit):
        super().__init__()
        self.unit = unit
        self.conv = unit.conv

    def forward(self, x):
        return self.unit(F.pad(x, (1, 1, 4, 5)))


def ds_cnn():
    return Separable(SamePadding(Unit(1, 64, (10, 4), 2)), [(64, 1)] * 4, 12, nn.ReLU)


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, size, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.up, self.down = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def forward(self, x):
        n, length, size = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).reshape(n, length, size))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def transformer(size=256, heads=4, blocks=4):
    return nn.Sequential(*[Block(size, heads) for _ in range(blocks)])


# By name: the network, and the shape of one input.
NETWORKS = {
    "resnet20": (lambda width: ResNet(3, width), (3, 32, 32)),
    "resnet56": (lambda width: ResNet(9, width), (3, 32, 32)),
    "mobilenet": (lambda width: mobilenet_v1(), (3, 96, 96)),
    "ds_cnn": (lambda width: ds_cnn(), (1, 49, 10)),
    "transformer": (lambda width: transformer(), (128, 256)),
}


def build(name, width=1):
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    return make(width), shape
