//! MobileNetV1 (Howard et al. 2017, arXiv:1704.04861) and MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), with ReLU6.
use crate::builder::{Builder, ConvSpec, Flow};
use crate::{Result, ZooEntry, ZooOptions};

pub(crate) const MOBILENET_V1: ZooEntry = ZooEntry {
    name: "mobilenet-v1",
    summary: "MobileNetV1: depthwise separable convolutions (Howard et al. 2017); 4.2 M parameters.",
    input: [3, 224, 224],
    classes: 1000,
    build: mobilenet_v1,
};

pub(crate) const MOBILENET_V2: ZooEntry = ZooEntry {
    name: "mobilenet-v2",
    summary: "MobileNetV2: inverted residuals with linear bottlenecks (Sandler et al. 2018); 3.5 M parameters.",
    input: [3, 224, 224],
    classes: 1000,
    build: mobilenet_v2,
};

/// Channels at a width as both papers' code rounds them: to a multiple of 8, at least 8, never more than a tenth below.
fn channels(base: usize, width: f64) -> usize {
    let wanted = base as f64 * width;
    let rounded = (((wanted + 4.0) / 8.0).floor() as usize * 8).max(8);
    if (rounded as f64) < 0.9 * wanted { rounded + 8 } else { rounded }
}

fn mobilenet_v1(b: &mut Builder, input: Flow, options: &ZooOptions) -> Result<Flow> {
    let wide = |base| channels(base, options.width);
    let mut x = unit(b, &input, "stem", ConvSpec::square(wide(32), 3, 2))?;
    let blocks =
        [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)];
    for (i, (out, stride)) in blocks.into_iter().enumerate() {
        let name = format!("blocks.{i}");
        x = unit(b, &x, &format!("{name}.depthwise"), ConvSpec::depthwise(x.shape[0], stride))?;
        x = unit(b, &x, &format!("{name}.pointwise"), ConvSpec::square(wide(out), 1, 1))?;
    }
    let x = b.global_average_pool(&x, "pool")?;
    b.linear(&x, "classifier", options.classes)
}

fn mobilenet_v2(b: &mut Builder, input: Flow, options: &ZooOptions) -> Result<Flow> {
    let mut x = unit(b, &input, "stem", ConvSpec::square(channels(32, options.width), 3, 2))?;
    // Expansion, channels, repetitions, stride of the first.
    let stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];
    let mut block = 0;
    for (expansion, base, repetitions, first_stride) in stages {
        for repetition in 0..repetitions {
            let stride = if repetition == 0 { first_stride } else { 1 };
            x = inverted_residual(b, &x, &format!("blocks.{block}"), expansion, channels(base, options.width), stride)?;
            block += 1;
        }
    }
    // The last convolution does not shrink below its full width.
    let x = unit(b, &x, "head", ConvSpec::square(channels(1280, options.width.max(1.0)), 1, 1))?;
    let x = b.global_average_pool(&x, "pool")?;
    b.linear(&x, "classifier", options.classes)
}

fn inverted_residual(b: &mut Builder, x: &Flow, name: &str, expansion: usize, out: usize, stride: usize) -> Result<Flow> {
    let hidden = x.shape[0] * expansion;
    let mut y = x.clone();
    if expansion > 1 {
        y = unit(b, &y, &format!("{name}.expand"), ConvSpec::square(hidden, 1, 1))?;
    }
    y = unit(b, &y, &format!("{name}.depthwise"), ConvSpec::depthwise(hidden, stride))?;
    y = b.conv_bn(&y, &format!("{name}.project.conv"), &format!("{name}.project.bn"), ConvSpec::square(out, 1, 1))?;
    if stride == 1 && x.shape[0] == out { Ok(b.add(x, &y, &format!("{name}.add"))) } else { Ok(y) }
}

/// Convolution, batch normalization, ReLU6.
fn unit(b: &mut Builder, x: &Flow, name: &str, spec: ConvSpec) -> Result<Flow> {
    let y = b.conv_bn(x, &format!("{name}.conv"), &format!("{name}.bn"), spec)?;
    b.relu6(&y, &format!("{name}.relu6"))
}
