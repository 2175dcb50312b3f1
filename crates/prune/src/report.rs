//! The result of pruning.
use crate::Candidate;
use graph::Model;
use tensor::Tensor;

/// Sparsity of one weight.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LayerSparsity {
    /// The weight's name.
    pub name: String,
    /// Number of elements of the weight.
    pub total: usize,
    /// Elements that are zero: masked, or zero without a mask.
    pub zeros: usize,
    /// `zeros / total`.
    pub sparsity: f64,
}

/// Sparsity of the weights that may be pruned.
#[derive(Clone, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct SparsityReport {
    /// Each weight.
    pub layers: Vec<LayerSparsity>,
    /// Share of zeros over all weights.
    pub sparsity: f64,
    /// Elements that were zero before pruning: not part of the requested sparsity.
    #[serde(default)]
    pub zero_before: usize,
    /// Layers whose weights are all zero: their output no longer depends on their input.
    #[serde(default)]
    pub emptied: Vec<String>,
    /// Weights that the granularity leaves dense, each with the reason.
    #[serde(default)]
    pub dense: Vec<(String, String)>,
    /// Sentences on parts of the network that are gone, and of the update of the weights that live.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl SparsityReport {
    /// Elements of all layers.
    pub fn total(&self) -> usize {
        self.layers.iter().map(|l| l.total).sum()
    }
}

/// Counts the zeros of each candidate's weight under its mask.
pub fn report(model: &Model, candidates: &[Candidate]) -> SparsityReport {
    let layers: Vec<LayerSparsity> = candidates
        .iter()
        .filter_map(|c| {
            let weight = model.values.tensor(c.weight)?;
            let zeros = zeros(weight, model.annotations.mask(c.weight));
            Some(LayerSparsity { name: c.name.clone(), total: weight.len(), zeros, sparsity: share(zeros, weight.len()) })
        })
        .collect();
    let sum = |f: fn(&LayerSparsity) -> usize| layers.iter().map(f).sum::<usize>();
    SparsityReport { sparsity: share(sum(|l| l.zeros), sum(|l| l.total)), layers, ..SparsityReport::default() }
}

fn zeros(weight: &Tensor, mask: Option<&Tensor>) -> usize {
    let values = weight.as_slice::<f32>().unwrap_or_default();
    match mask.and_then(|m| m.as_slice::<bool>().ok()) {
        Some(live) => values.iter().zip(live).filter(|(v, l)| !**l || **v == 0.0).count(),
        None => values.iter().filter(|v| **v == 0.0).count(),
    }
}

fn share(zeros: usize, total: usize) -> f64 {
    if total == 0 { 0.0 } else { zeros as f64 / total as f64 }
}
