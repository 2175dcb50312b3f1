//! ResNet-8, the image classification network of MLPerf Tiny (Banbury et al. 2021, arXiv:2106.07597).
use crate::builder::{Builder, ConvSpec, Flow};
use crate::{Result, ZooEntry, ZooOptions, scaled};

pub(crate) const RESNET_8: ZooEntry = ZooEntry {
    name: "resnet8",
    summary: "ResNet-8 of MLPerf Tiny: three residual blocks of 16, 32 and 64 channels with 1x1 shortcuts; 0.08 M parameters.",
    input: [3, 32, 32],
    classes: 10,
    build: resnet_8,
};

/// Differs from the reference in its symmetric padding, and in that a convolution before a normalization has no bias.
fn resnet_8(b: &mut Builder, input: Flow, options: &ZooOptions) -> Result<Flow> {
    let x = b.conv_bn(&input, "conv1", "bn1", ConvSpec::square(scaled(16, options.width), 3, 1))?;
    let mut x = b.relu(&x, "relu");
    for (i, channels) in [16, 32, 64].into_iter().enumerate() {
        let (name, stride) = (format!("layer{}", i + 1), if i == 0 { 1 } else { 2 });
        let channels = scaled(channels, options.width);
        let y = b.conv_bn(&x, &format!("{name}.conv1"), &format!("{name}.bn1"), ConvSpec::square(channels, 3, stride))?;
        let y = b.relu(&y, &format!("{name}.relu1"));
        let y = b.conv_bn(&y, &format!("{name}.conv2"), &format!("{name}.bn2"), ConvSpec::square(channels, 3, 1))?;
        let shortcut =
            if i == 0 { x.clone() } else { b.conv(&x, &format!("{name}.shortcut"), ConvSpec::square(channels, 1, stride).with_bias())? };
        let y = b.add(&y, &shortcut, &format!("{name}.add"));
        x = b.relu(&y, &format!("{name}.relu2"));
    }
    let x = b.global_average_pool(&x, "pool")?;
    b.linear(&x, "linear", options.classes)
}
