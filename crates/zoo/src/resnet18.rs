//! ResNet-18 for ImageNet (He et al. 2015, arXiv:1512.03385), with torchvision's parameter names.
use crate::builder::{Builder, ConvSpec, Flow};
use crate::{Result, ZooEntry, ZooOptions, scaled};

pub(crate) const RESNET_18: ZooEntry = ZooEntry {
    name: "resnet18",
    summary: "ResNet-18 for ImageNet, 1x1 projection shortcuts (He et al. 2015); 11.7 M parameters.",
    input: [3, 224, 224],
    classes: 1000,
    build: resnet_18,
};

fn resnet_18(b: &mut Builder, input: Flow, options: &ZooOptions) -> Result<Flow> {
    let x = b.conv_bn(&input, "conv1", "bn1", ConvSpec::square(scaled(64, options.width), 7, 2))?;
    let x = b.relu(&x, "relu");
    let mut x = b.max_pool(&x, "maxpool", 3, 2, 1)?;
    for (stage, channels) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            x = basic_block(b, &x, &format!("layer{}.{block}", stage + 1), scaled(channels, options.width), stride)?;
        }
    }
    let x = b.global_average_pool(&x, "avgpool")?;
    b.linear(&x, "fc", options.classes)
}

fn basic_block(b: &mut Builder, x: &Flow, name: &str, channels: usize, stride: usize) -> Result<Flow> {
    let y = b.conv_bn(x, &format!("{name}.conv1"), &format!("{name}.bn1"), ConvSpec::square(channels, 3, stride))?;
    let y = b.relu(&y, &format!("{name}.relu1"));
    let y = b.conv_bn(&y, &format!("{name}.conv2"), &format!("{name}.bn2"), ConvSpec::square(channels, 3, 1))?;
    let shortcut = if stride == 1 && x.shape[0] == channels {
        x.clone()
    } else {
        b.conv_bn(x, &format!("{name}.downsample.0"), &format!("{name}.downsample.1"), ConvSpec::square(channels, 1, stride))?
    };
    let y = b.add(&y, &shortcut, &format!("{name}.add"));
    Ok(b.relu(&y, &format!("{name}.relu2")))
}
