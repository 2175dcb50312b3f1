"""One training step in PyTorch: forward, mean squared error to random targets, backward, SGD with momentum.

--layout   nchw, channels_last, or compile (torch.compile over channels_last)
--qat      eager quantization-aware training (torch.ao), W8A8 with weights per channel. Batch normalization is folded into
           the convolutions first, as Espalier does; the usual workflow that keeps it in training is slower.
--sparsity masks multiplied into the weights after each update
--teacher  a ResNet-56 in evaluation mode, asked about each batch: Hinton's loss beside the task's
"""
import argparse
import copy

import torch
from torch.ao import quantization
from torch.nn import functional as F

from common import THREADS, emit_steps, peak_memory_bytes, timed_steps
from networks import NETWORKS, Unit, build

TEMPERATURE, ALPHA = 4.0, 0.7


def quantized(network):
    network = network.eval()
    for module in network.modules():
        if isinstance(module, Unit):
            quantization.fuse_modules(module, module.parts_to_fuse(), inplace=True)
    network = quantization.QuantWrapper(network.train())
    network.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    return quantization.prepare_qat(network)


def masks(network, sparsity):
    """Half of the weights by magnitude over all layers; the weights and what multiplies them."""
    weights = [p for p in network.parameters() if p.dim() > 1]
    threshold = torch.cat([w.detach().abs().flatten() for w in weights]).quantile(sparsity)
    return weights, [(w.detach().abs() > threshold).to(w.dtype) for w in weights]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--layout", choices=["nchw", "channels_last", "compile"], default="nchw")
    parser.add_argument("--qat", action="store_true")
    parser.add_argument("--sparsity", type=float)
    parser.add_argument("--teacher", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    imported = peak_memory_bytes()

    network, shape = build(args.network)
    network.train()
    if args.qat:
        network = quantized(network)
    teacher = build("resnet56")[0].eval() if args.teacher else None
    inputs = torch.rand(args.batch, *shape)
    if args.layout != "nchw" and inputs.dim() == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        network = network.to(memory_format=torch.channels_last)
        teacher = teacher and teacher.to(memory_format=torch.channels_last)
    with torch.no_grad():
        targets = torch.rand_like(copy.deepcopy(network)(inputs))
    pruned, kept = masks(network, args.sparsity) if args.sparsity else ([], [])
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-9, momentum=0.9, foreach=True)
    forward = torch.compile(network) if args.layout == "compile" else network

    def step():
        optimizer.zero_grad(set_to_none=True)
        outputs = forward(inputs)
        loss = F.mse_loss(outputs, targets)
        if teacher is not None:
            with torch.no_grad():
                taught = F.softmax(teacher(inputs) / TEMPERATURE, 1)
            divergence = F.kl_div(F.log_softmax(outputs / TEMPERATURE, 1), taught, reduction="batchmean")
            loss = (1 - ALPHA) * loss + ALPHA * TEMPERATURE**2 * divergence
        loss.backward()
        optimizer.step()
        if pruned:
            with torch.no_grad():
                torch._foreach_mul_(pruned, kept)

    times = timed_steps(step, args.steps, warm_up=5)
    emit_steps(times, args.batch, layout=args.layout, imported_memory_bytes=imported)


if __name__ == "__main__":
    main()
