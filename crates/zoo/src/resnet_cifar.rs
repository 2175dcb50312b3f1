//! The residual networks for CIFAR (He et al. 2015, arXiv:1512.03385, section 4.2): depth `6n + 2`, three stages of
//! 16, 32 and 64 channels, shortcuts without parameters (option A: every second position, new channels zero).
use crate::builder::{Builder, ConvSpec, Flow};
use crate::{Result, ZooEntry, ZooOptions, scaled};

const fn entry(name: &'static str, summary: &'static str, build: fn(&mut Builder, Flow, &ZooOptions) -> Result<Flow>) -> ZooEntry {
    ZooEntry { name, summary, input: [3, 32, 32], classes: 10, build }
}

pub(crate) const RESNET_20: ZooEntry =
    entry("resnet20", "ResNet-20 for CIFAR with option-A shortcuts (He et al. 2015); 0.27 M parameters.", |b, x, o| resnet(b, x, o, 3));
pub(crate) const RESNET_32: ZooEntry =
    entry("resnet32", "ResNet-32 for CIFAR with option-A shortcuts (He et al. 2015); 0.46 M parameters.", |b, x, o| resnet(b, x, o, 5));
pub(crate) const RESNET_44: ZooEntry =
    entry("resnet44", "ResNet-44 for CIFAR with option-A shortcuts (He et al. 2015); 0.66 M parameters.", |b, x, o| resnet(b, x, o, 7));
pub(crate) const RESNET_56: ZooEntry =
    entry("resnet56", "ResNet-56 for CIFAR with option-A shortcuts (He et al. 2015); 0.85 M parameters.", |b, x, o| resnet(b, x, o, 9));

fn resnet(b: &mut Builder, input: Flow, options: &ZooOptions, blocks: usize) -> Result<Flow> {
    let x = b.conv_bn(&input, "conv1", "bn1", ConvSpec::square(scaled(16, options.width), 3, 1))?;
    let mut x = b.relu(&x, "relu");
    for (stage, channels) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            x = basic_block(b, &x, &format!("layer{}.{block}", stage + 1), scaled(channels, options.width), stride)?;
        }
    }
    let x = b.global_average_pool(&x, "pool")?;
    b.linear(&x, "linear", options.classes)
}

fn basic_block(b: &mut Builder, x: &Flow, name: &str, channels: usize, stride: usize) -> Result<Flow> {
    let y = b.conv_bn(x, &format!("{name}.conv1"), &format!("{name}.bn1"), ConvSpec::square(channels, 3, stride))?;
    let y = b.relu(&y, &format!("{name}.relu1"));
    let y = b.conv_bn(&y, &format!("{name}.conv2"), &format!("{name}.bn2"), ConvSpec::square(channels, 3, 1))?;
    let mut shortcut = x.clone();
    if stride == 2 {
        shortcut = b.subsample(&shortcut, &format!("{name}.shortcut.slice"))?;
    }
    if shortcut.shape[0] != channels {
        shortcut = b.pad_channels(&shortcut, &format!("{name}.shortcut.pad"), channels)?;
    }
    let y = b.add(&y, &shortcut, &format!("{name}.add"));
    Ok(b.relu(&y, &format!("{name}.relu2")))
}
