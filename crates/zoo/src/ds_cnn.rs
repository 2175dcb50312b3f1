//! DS-CNN, the keyword spotting network (Zhang et al. 2017, arXiv:1711.07128) in the form of MLPerf Tiny.
use crate::builder::{Builder, ConvSpec, Flow};
use crate::{Result, ZooEntry, ZooOptions, scaled};

pub(crate) const DS_CNN: ZooEntry = ZooEntry {
    name: "ds-cnn",
    summary: "DS-CNN for keyword spotting on 49x10 MFCC frames: four depthwise separable blocks of 64 channels; 23 k parameters.",
    input: [1, 49, 10],
    classes: 12,
    build: ds_cnn,
};

fn ds_cnn(b: &mut Builder, input: Flow, options: &ZooOptions) -> Result<Flow> {
    let channels = scaled(64, options.width);
    let stem = ConvSpec::same(channels, [10, 4], 2, &input.shape);
    let mut x = unit(b, &input, "stem", stem)?;
    for block in 0..4 {
        x = unit(b, &x, &format!("blocks.{block}.depthwise"), ConvSpec::depthwise(channels, 1))?;
        x = unit(b, &x, &format!("blocks.{block}.pointwise"), ConvSpec::square(channels, 1, 1))?;
    }
    let x = b.global_average_pool(&x, "pool")?;
    b.linear(&x, "classifier", options.classes)
}

/// Convolution, batch normalization, ReLU.
fn unit(b: &mut Builder, x: &Flow, name: &str, spec: ConvSpec) -> Result<Flow> {
    let y = b.conv_bn(x, &format!("{name}.conv"), &format!("{name}.bn"), spec)?;
    Ok(b.relu(&y, &format!("{name}.relu")))
}
