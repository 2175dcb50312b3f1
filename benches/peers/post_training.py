"""Post-training W8A8 quantization of an image classifier by ONNX Runtime's `quantize_static`, entropy calibration.

The clock runs from the float file on disk to the quantized one, decoding included.
"""
import argparse
import io
import pathlib
import tempfile
import time

import numpy as np
import pyarrow.parquet as parquet
from onnxruntime import quantization
from PIL import Image

from common import emit


class Images(quantization.CalibrationDataReader):
    """The first rows of the file, one at a time."""

    def __init__(self, path, count, name):
        rows = parquet.ParquetFile(path).read_row_group(0).slice(0, count)
        self.images, self.name = iter(rows["image"].to_pylist()), name

    def get_next(self):
        row = next(self.images, None)
        if row is None:
            return None
        image = np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB"), np.float32)
        return {self.name: ((image - 127) / 128).transpose(2, 0, 1)[None]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--input", default="input")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepared, target = (str(pathlib.Path(folder) / name) for name in ("prepared.onnx", "quantized.onnx"))
        began = time.perf_counter()
        # Folds batch normalization, as the documentation of quantize_static asks for.
        quantization.shape_inference.quant_pre_process(args.model, prepared)
        quantization.quantize_static(
            prepared,
            target,
            Images(args.data, args.images, args.input),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.Entropy,
        )
        seconds = time.perf_counter() - began
        emit(seconds=seconds, images=args.images, file_bytes=pathlib.Path(target).stat().st_size)


if __name__ == "__main__":
    main()
