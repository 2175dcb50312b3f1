//! What layers multiply with their weights, and the sums of its products.
use crate::{Executor, Mode, Named, TrainError};
use graph::{Model, Node};
use ops::Products;
use tensor::{Tensor, TensorError};

/// Most bytes of a layer's inputs laid out as columns at once.
const COLUMNS: usize = 64 << 20;

/// What a layer multiplies with its weight, as columns.
pub struct LayerInputs {
    /// How it multiplies them.
    pub products: Products,
    /// The layer's operator with the identity as its weight: each of its results is one element of what a weight is multiplied with.
    columns: Executor<'static>,
    /// Groups of outputs that multiply different columns.
    pub groups: usize,
    /// Number of outputs.
    pub outputs: usize,
    /// Weights of one output.
    pub row: usize,
}

impl LayerInputs {
    /// For a node whose weight, its input 1, has this shape and is multiplied in this way.
    ///
    /// # Errors
    /// If the layer cannot be run by itself.
    pub fn new(model: &Model, node: &Node, products: Products, shape: &[usize]) -> Result<Self, TrainError> {
        let (outputs, row) = match products {
            Products::Kernel => (shape[0], shape[1..].iter().product::<usize>()),
            Products::Rows => (shape[0], shape[1]),
            Products::Columns => (shape[1], shape[0]),
        };
        let groups = if products == Products::Kernel { node.int_or("group", 1).unwrap_or(1).max(1) as usize } else { 1 };
        let mut identity = vec![0f32; groups * row * row];
        (0..groups * row).for_each(|i| identity[i * row + i % row] = 1.0);
        let sides = match products {
            Products::Kernel => std::iter::once(groups * row).chain(shape[1..].iter().copied()).collect(),
            _ => vec![row, row],
        };
        let mut alone = Model { opsets: model.opsets.clone(), ..Model::new(model.onnx_opset()) };
        let x = alone.values.add_named("x");
        let weight = alone.values.add_constant("weight", Tensor::new(identity, sides)?);
        let y = alone.values.add_named("y");
        let mut node = node.clone();
        (node.inputs, node.outputs) = (vec![Some(x), Some(weight)], vec![Some(y)]);
        node.attributes.remove("alpha");
        alone.graph.inputs.push(x);
        alone.graph.constants.push(weight);
        alone.graph.nodes.push(node);
        alone.graph.outputs.push(y);
        Ok(LayerInputs { products, columns: Executor::owned(alone)?, groups, outputs, row })
    }

    /// The layer's operator with the identity as its weight, from `x` to `y`.
    pub fn columns(&self) -> &Executor<'static> {
        &self.columns
    }

    /// A weight as `[outputs, row]`.
    ///
    /// # Errors
    /// For a tensor of another size.
    pub fn rows(&self, weight: &Tensor) -> Result<Tensor, TensorError> {
        match self.products {
            Products::Columns => weight.transpose(&[1, 0]),
            _ => weight.reshape(vec![self.outputs, self.row]),
        }
    }

    /// The reverse of [`LayerInputs::rows`].
    ///
    /// # Errors
    /// For another number of elements.
    pub fn restored(&self, rows: Vec<f32>, shape: &[usize]) -> Result<Tensor, TensorError> {
        let rows = Tensor::new(rows, [self.outputs, self.row])?;
        match self.products {
            Products::Columns => rows.transpose(&[1, 0]),
            _ => rows.reshape(shape.to_vec()),
        }
    }
}

/// `X X^T` of each group, summed over batches.
pub struct InputPower {
    /// For each group the sums of products `[row, row]`.
    pub groups: Vec<Vec<f64>>,
}

impl InputPower {
    /// Of no data yet.
    pub fn new(layer: &LayerInputs) -> Self {
        InputPower { groups: vec![vec![0.0; layer.row * layer.row]; layer.groups] }
    }

    /// Adds what the layer multiplies when it reads `x`.
    ///
    /// # Errors
    /// Errors of running the layer.
    pub fn add(&mut self, layer: &LayerInputs, x: &Tensor) -> Result<(), TrainError> {
        self.add_between(layer, x, x)
    }

    /// Adds the products of what the layer multiplies when it reads `left` with what it multiplies when it reads `x`, of the same shape:
    /// `X_left X^T`.
    ///
    /// # Errors
    /// Errors of running the layer.
    pub fn add_between(&mut self, layer: &LayerInputs, left: &Tensor, x: &Tensor) -> Result<(), TrainError> {
        let same = left.as_slice::<f32>().ok().zip(x.as_slice::<f32>().ok()).is_some_and(|(left, x)| std::ptr::eq(left, x));
        let samples = x.shape().first().copied().unwrap_or(0);
        let mut from = 0;
        // The first sample tells how many fit.
        let mut step = 1;
        while from < samples {
            let to = (from + step).min(samples);
            let columns_of = |x: &Tensor| {
                let part = x.narrow(0, from, to - from)?;
                let mut columns = layer.columns.run(&Named::from([("x".to_string(), part)]), Mode::FLOAT)?;
                columns.remove("y").ok_or_else(|| TrainError::Data("a layer gave no result".into()))
            };
            let columns = &columns_of(x)?;
            let other = if same { None } else { Some(columns_of(left)?) };
            step = (COLUMNS / (4 * columns.len() / (to - from)).max(1)).max(1);
            from = to;
            for (group, sums) in self.groups.iter_mut().enumerate() {
                let x = layer.group(columns, group)?;
                let left = match &other {
                    Some(other) => layer.group(other, group)?,
                    None => x.clone(),
                };
                let square = left.matmul(&x.transpose(&[1, 0])?)?;
                let square = square.to_f32_vec()?;
                sums.iter_mut().zip(square).for_each(|(sum, v)| *sum += f64::from(v));
            }
        }
        Ok(())
    }
}

impl LayerInputs {
    /// The columns `[row, n]` of a group.
    ///
    /// # Errors
    /// For a tensor of another size.
    pub fn group(&self, columns: &Tensor, group: usize) -> Result<Tensor, TensorError> {
        match self.products {
            Products::Kernel => {
                let one = columns.narrow(1, group * self.row, self.row)?;
                let axes: Vec<usize> = std::iter::once(1).chain([0]).chain(2..one.rank()).collect();
                let count = one.len() / self.row.max(1);
                one.transpose(&axes)?.reshape(vec![self.row, count])
            }
            _ => columns.reshape(vec![columns.len() / self.row.max(1), self.row])?.transpose(&[1, 0]),
        }
    }
}

/// The upper triangular `U` with `U^T U` the inverse of a positive definite matrix; `None` if it is not one.
///
/// With the rows and columns of `h` reversed, `h = L L^T`; `U` is the inverse of `L`, reversed again.
pub fn inverse_factor(h: &[f64]) -> Option<Vec<f64>> {
    let k = (h.len() as f64).sqrt().round() as usize;
    let mut l = vec![0.0; k * k];
    for i in 0..k {
        for j in 0..=i {
            let (a, b) = l.split_at(i * k);
            let dot: f64 = match i == j {
                true => b[..j].iter().map(|v| v * v).sum(),
                false => a[j * k..j * k + j].iter().zip(&b[..j]).map(|(x, y)| x * y).sum(),
            };
            let rest = h[(k - 1 - i) * k + (k - 1 - j)] - dot;
            l[i * k + j] = if i == j {
                if rest.is_nan() || rest <= 0.0 {
                    return None;
                }
                rest.sqrt()
            } else {
                rest / l[j * k + j]
            };
        }
    }
    // Rows of the inverse of L, from the rows above.
    let mut inverse = vec![0.0; k * k];
    for i in 0..k {
        let (above, row) = inverse.split_at_mut(i * k);
        for j in 0..i {
            let factor = l[i * k + j];
            row[..=j].iter_mut().zip(&above[j * k..=j * k + j]).for_each(|(r, a)| *r -= factor * a);
        }
        row[..i].iter_mut().for_each(|r| *r /= l[i * k + i]);
        row[i] = 1.0 / l[i * k + i];
    }
    Some((0..k * k).map(|at| inverse[(k - 1 - at / k) * k + (k - 1 - at % k)]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_is_that_of_the_inverse() {
        for seed in 0..20 {
            let k = 5;
            let x: Vec<f64> = (0..k * 9).map(|i| 2.0 * tensor::random::unit(seed, i as u64) - 1.0).collect();
            let dot = |i: usize, j: usize| (0..9).map(|n| x[i * 9 + n] * x[j * 9 + n]).sum::<f64>() + if i == j { 0.3 } else { 0.0 };
            let h: Vec<f64> = (0..k * k).map(|at| dot(at / k, at % k)).collect();
            let u = inverse_factor(&h).unwrap();
            for i in 0..k {
                assert!((0..i).all(|j| u[i * k + j] == 0.0) && u[i * k + i] > 0.0);
                for j in 0..k {
                    // U^T U H is the identity.
                    let inverse = |i: usize, j: usize| (0..k).map(|n| u[n * k + i] * u[n * k + j]).sum::<f64>();
                    let one: f64 = (0..k).map(|n| inverse(i, n) * h[n * k + j]).sum();
                    assert!((one - f64::from(u8::from(i == j))).abs() < 1e-8, "{i} {j} {one}");
                }
            }
        }
    }
}
