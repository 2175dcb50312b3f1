"""An epoch of ResNet-20 in PyTorch from a Parquet file of PNG images: DataLoader workers decode, crop with padding, flip.

The clock starts when the epoch does: starting the interpreter, importing PyTorch and reading the file do not count.
"""
import argparse
import io
import time

import numpy as np
import pyarrow.parquet as parquet
import torch
from PIL import Image
from torch.nn import functional as F

from common import THREADS, emit
from networks import build

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


class Images(torch.utils.data.Dataset):
    """Rows of the file, decoded and augmented when they are asked for."""

    def __init__(self, path):
        table = parquet.read_table(path)
        self.images = table["image"].combine_chunks().field("bytes")
        self.labels = table["label"].to_numpy()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, row):
        image = np.asarray(Image.open(io.BytesIO(self.images[row].as_py())), np.float32)
        image = np.pad((image / 255 - MEAN) / STD, ((4, 4), (4, 4), (0, 0)))
        top, left, flip = torch.randint(9, (2,)).tolist() + [torch.rand(()) < 0.5]
        image = image[top : top + 32, left : left + 32]
        image = image[:, ::-1] if flip else image
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), self.labels[row]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--layout", choices=["nchw", "channels_last"], default="channels_last")
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    layout = torch.channels_last if args.layout == "channels_last" else torch.contiguous_format
    network = build("resnet20")[0].to(memory_format=layout).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, foreach=True)
    images = Images(args.data)
    loader = torch.utils.data.DataLoader(images, args.batch, shuffle=True, num_workers=args.workers, drop_last=True)

    began = time.perf_counter()
    for inputs, labels in loader:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(network(inputs.contiguous(memory_format=layout)), labels).backward()
        optimizer.step()
    seconds = time.perf_counter() - began
    emit(seconds=seconds, images_per_s=len(images) / seconds, layout=args.layout, workers=args.workers)


if __name__ == "__main__":
    main()
