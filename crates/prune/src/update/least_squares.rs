//! Least squares: the weights that live take the values with which their layer's result changes least.
use super::WeightUpdate;
use crate::layers::{layerwise, power, readers};
use crate::{PruneError, Result, candidates};
use graph::Model;
use technique::{Entry, Fault, Manual, Settings, member, within};
use tensor::{DType, Tensor};
use train::GradientSource;

pub(super) const ENTRY: Entry<dyn WeightUpdate> = member!(
    LeastSquares as dyn WeightUpdate,
    Manual {
        name: "least_squares",
        summary: "The weights that live take the values with which each layer's result changes least. Needs data without labels, no training.",
        details: "\
Layer by layer in the order of the graph, with W [out, k] the weight, M its mask and X [k, n] what it multiplies over `batches` training batches in
the network with the layers before it pruned and updated already:

    minimize |(M * V - W) X|^2 + damping * mean(diag X X^T) * |M * V - W|^2 over V

by conjugate gradients on the weights that live (`iterations` at most), which never does worse than W itself. Makes one-shot pruning far
better where no training follows, and is a better start where it does. Convolutions and matrix products; weights that several nodes read
keep their values.",
        source: "Hassibi & Stork 1993, Optimal brain surgeon; Frantar & Alistarh 2023 (SparseGPT), arXiv:2301.00774, section 3",
        example: "sparsity = 0.5\nscope = \"layer\"\nupdate = { kind = \"least_squares\", batches = 8 }",
    }
);

/// The weights that live, fitted to the results of the layer with all weights.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LeastSquares {
    /// Number of training batches.
    pub batches: u64,
    /// Share of the mean power of the inputs by which a change of a weight counts by itself.
    pub damping: f64,
    /// Most steps of the solution.
    pub iterations: usize,
}

impl Default for LeastSquares {
    fn default() -> Self {
        LeastSquares { batches: 8, damping: 0.01, iterations: 100 }
    }
}

impl Settings for LeastSquares {
    fn check(&self) -> Result<(), Fault> {
        if self.batches == 0 {
            return Err(Fault::new("batches", "batches = 0: at least one batch is needed"));
        }
        if self.iterations == 0 {
            return Err(Fault::new("iterations", "iterations = 0 changes nothing"));
        }
        within("damping", self.damping, 1e-8, 1e3, "it is a share of the mean power")
    }
}

impl WeightUpdate for LeastSquares {
    fn apply(&self, model: &mut Model, skip: &[String], source: &GradientSource) -> Result<Vec<String>> {
        let list: Vec<_> = candidates(model, skip)?.into_iter().filter(|c| model.annotations.mask(c.weight).is_some()).collect();
        let (readers, left) = readers(model, &list);
        let (mut states, mut ratios) = (layerwise(model, source, self.batches)?, vec![]);
        for reader in &readers {
            let (id, name) = (reader.candidate.weight, &reader.candidate.name);
            let wrong = |source| PruneError::Tensor { weight: name.clone(), source };
            let (layer, groups) = power(model, &mut states, reader, self.damping)?;
            let (Some(weight), Some(mask)) = (model.values.tensor(id), model.annotations.mask(id)) else { continue };
            let rows = |t: &Tensor| layer.rows(t).and_then(|t| t.to_f32_vec());
            let original = rows(weight).map_err(wrong)?;
            let live: Vec<bool> = mask.cast(DType::F32).and_then(|m| rows(&m)).map_err(wrong)?.iter().map(|m| *m != 0.0).collect();
            let mut new = original.clone();
            let (k, part) = (layer.row, layer.outputs / layer.groups * layer.row);
            for (group, h) in groups.into_iter().enumerate() {
                let span = group * part..(group + 1) * part;
                let h = Tensor::new(h, [k, k]).map_err(wrong)?;
                let (fitted, before, after) = fit(&original[span.clone()], &live[span.clone()], &h, self.iterations).map_err(wrong)?;
                let kept = new[span.clone()].iter_mut().zip(fitted).zip(&live[span]).filter(|(_, live)| **live);
                kept.for_each(|((v, fitted), _)| *v = fitted as f32);
                if before > 0.0 {
                    ratios.push((after / before).max(f64::MIN_POSITIVE));
                }
            }
            let stored = layer.restored(new, weight.shape()).map_err(wrong)?;
            model.values.set_tensor(id, stored);
        }
        let mean = (ratios.iter().map(|r: &f64| r.ln()).sum::<f64>() / ratios.len().max(1) as f64).exp();
        let mut notes = vec![format!(
            "the weights that live make up for the others: error of a layer's result {mean:.2} times that without (geometric mean of {} layers)",
            readers.len()
        )];
        if !left.is_empty() {
            notes.push(format!("weights that several nodes read, or of other operators, keep their values: {}", left.join(", ")));
        }
        Ok(notes)
    }
}

/// The rows of `weight` with the elements that live fitted: by conjugate gradients with the diagonal of `h` as preconditioner, for all
/// rows at once. Returns the rows, and the error before and after.
fn fit(weight: &[f32], live: &[bool], h: &Tensor, iterations: usize) -> tensor::Result<(Vec<f64>, f64, f64)> {
    let k = h.shape()[0];
    let rows = weight.len() / k.max(1);
    let diagonal: Vec<f64> = h.to_f64_vec()?.iter().step_by(k + 1).copied().collect();
    let masked = |v: Vec<f64>| v.into_iter().zip(live).map(|(v, live)| if *live { v } else { 0.0 }).collect::<Vec<_>>();
    let times = |v: &[f64]| Tensor::new(v.to_vec(), [rows, k])?.matmul(h)?.to_f64_vec();
    let dot = |a: &[f64], b: &[f64]| -> Vec<f64> {
        let row = |r: usize| a[r * k..(r + 1) * k].iter().zip(&b[r * k..(r + 1) * k]).map(|(a, b)| a * b).sum();
        (0..rows).map(row).collect()
    };
    let prepared = |r: &[f64]| r.iter().enumerate().map(|(i, r)| r / diagonal[i % k]).collect::<Vec<_>>();
    let w: Vec<f64> = weight.iter().map(|w| f64::from(*w)).collect();
    let mut v = masked(w.clone());
    let difference = |v: &[f64]| w.iter().zip(v).map(|(w, v)| w - v).collect::<Vec<_>>();
    let error = |v: &[f64]| -> tensor::Result<f64> {
        let d = difference(v);
        Ok(dot(&d, &times(&d)?).iter().sum())
    };
    let before = error(&v)?;
    let mut residual = masked(times(&difference(&v))?);
    let mut direction = prepared(&residual);
    let mut size = dot(&residual, &direction);
    let first: f64 = size.iter().sum();
    for _ in 0..iterations {
        if size.iter().sum::<f64>() <= 1e-12 * first {
            break;
        }
        let moved = masked(times(&direction)?);
        let along = dot(&direction, &moved);
        let step: Vec<f64> = size.iter().zip(&along).map(|(s, a)| if *a > 0.0 { s / a } else { 0.0 }).collect();
        for i in 0..v.len() {
            v[i] += step[i / k] * direction[i];
            residual[i] -= step[i / k] * moved[i];
        }
        let next = prepared(&residual);
        let fresh = dot(&residual, &next);
        for (i, d) in direction.iter_mut().enumerate() {
            let ratio = if size[i / k] > 0.0 { fresh[i / k] / size[i / k] } else { 0.0 };
            *d = next[i] + ratio * *d;
        }
        size = fresh;
    }
    let after = error(&v)?;
    Ok(if after <= before { (v, before, after) } else { (masked(w.clone()), before, before) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::random;

    /// Sums of products of `n` random columns with a common part.
    fn products(seed: u64, k: usize, n: usize) -> Vec<f64> {
        let x = |i: usize, s: usize| random::gaussian(seed, (i * n + s) as u64) + 0.7 * random::gaussian(seed + 1, s as u64);
        (0..k * k).map(|at| (0..n).map(|s| x(at / k, s) * x(at % k, s)).sum::<f64>() + f64::from(u8::from(at / k == at % k))).collect()
    }

    #[test]
    fn the_fit_is_the_least_squares_solution() {
        let (k, rows) = (7, 3);
        let h = products(4, k, 20);
        let weight: Vec<f32> = (0..rows * k).map(|i| random::gaussian(9, i as u64) as f32).collect();
        let live: Vec<bool> = (0..rows * k).map(|i| !random::bits(2, i as u64).is_multiple_of(3)).collect();
        let (found, before, after) = fit(&weight, &live, &Tensor::new(h.clone(), [k, k]).unwrap(), 100).unwrap();
        assert!(after < 0.7 * before, "{before} {after}");
        for row in 0..rows {
            // The gradient by each element that lives vanishes.
            let d: Vec<f64> = (0..k).map(|i| found[row * k + i] - f64::from(weight[row * k + i])).collect();
            for i in 0..k {
                let slope: f64 = (0..k).map(|j| h[i * k + j] * d[j]).sum();
                let at = row * k + i;
                assert!(if live[at] { slope.abs() < 1e-4 } else { found[at] == 0.0 }, "{row} {i} {slope}");
            }
        }
    }

    #[test]
    fn an_empty_row_and_a_whole_one_stay() {
        let h = Tensor::new(products(1, 4, 9), [4, 4]).unwrap();
        let weight = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let live: Vec<bool> = (0..8).map(|i| i < 4).collect();
        let (found, _, _) = fit(&weight, &live, &h, 50).unwrap();
        assert_eq!(found, [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
