//! LeNet-300-100 and LeNet-5 (LeCun et al. 1998), in the form the compression literature measures.
use crate::builder::{Builder, ConvSpec, Flow};
use crate::{Result, ZooEntry, ZooOptions, scaled};

pub(crate) const LENET_300_100: ZooEntry = ZooEntry {
    name: "lenet300-100",
    summary: "LeNet-300-100: two hidden layers of 300 and 100 units (LeCun et al. 1998); 266,610 parameters on MNIST.",
    input: [1, 28, 28],
    classes: 10,
    build: lenet_300_100,
};

pub(crate) const LENET_5: ZooEntry = ZooEntry {
    name: "lenet5",
    summary: "LeNet-5 as Caffe and Deep Compression have it, with ReLU behind each hidden layer; 431,080 parameters on MNIST.",
    input: [1, 28, 28],
    classes: 10,
    build: lenet_5,
};

fn lenet_300_100(b: &mut Builder, input: Flow, options: &ZooOptions) -> Result<Flow> {
    let x = b.flatten(&input, "flatten");
    let x = b.linear(&x, "fc1", scaled(300, options.width))?;
    let x = b.relu(&x, "relu1");
    let x = b.linear(&x, "fc2", scaled(100, options.width))?;
    let x = b.relu(&x, "relu2");
    b.linear(&x, "fc3", options.classes)
}

/// Caffe's network has a ReLU only after the first fully connected layer; here each convolution has one too.
fn lenet_5(b: &mut Builder, input: Flow, options: &ZooOptions) -> Result<Flow> {
    let mut x = input;
    for (i, channels) in [20, 50].into_iter().enumerate() {
        let spec = ConvSpec::square(scaled(channels, options.width), 5, 1).unpadded().with_bias();
        x = b.conv(&x, &format!("conv{}", i + 1), spec)?;
        x = b.relu(&x, &format!("relu{}", i + 1));
        x = b.max_pool(&x, &format!("pool{}", i + 1), 2, 2, 0)?;
    }
    let x = b.flatten(&x, "flatten");
    let x = b.linear(&x, "fc1", scaled(500, options.width))?;
    let x = b.relu(&x, "relu3");
    b.linear(&x, "fc2", options.classes)
}
