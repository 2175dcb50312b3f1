//! A plain multi-layer perceptron.
use crate::builder::{Builder, Flow};
use crate::{Result, ZooEntry, ZooOptions, scaled};

pub(crate) const MLP: ZooEntry = ZooEntry {
    name: "mlp",
    summary: "Two hidden layers of 256 and 128 units with ReLU, for small inputs such as the 8x8 digits.",
    input: [1, 8, 8],
    classes: 10,
    build: mlp,
};

fn mlp(b: &mut Builder, input: Flow, options: &ZooOptions) -> Result<Flow> {
    let mut x = b.flatten(&input, "flatten");
    for (i, units) in [256, 128].into_iter().enumerate() {
        x = b.linear(&x, &format!("fc{}", i + 1), scaled(units, options.width))?;
        x = b.relu(&x, &format!("relu{}", i + 1));
    }
    b.linear(&x, "fc3", options.classes)
}
