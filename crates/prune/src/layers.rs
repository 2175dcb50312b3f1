//! The layers of a model that read weights, one after another, with the sums of the products of their inputs.
use crate::{Candidate, Result};
use graph::Model;
use ops::Products;
use std::collections::HashMap;
use train::{Batch, GradientSource, InputPower, LayerInputs, Layerwise, Named, TrainError};

/// A layer: the place of its node, and its weight.
pub(crate) struct Reader<'a> {
    pub(crate) at: usize,
    pub(crate) products: Products,
    pub(crate) candidate: &'a Candidate,
}

/// The candidates that one convolution or matrix product of the main graph alone reads, in the order of the nodes; and the names of the
/// others.
pub(crate) fn readers<'a>(model: &Model, list: &'a [Candidate]) -> (Vec<Reader<'a>>, Vec<String>) {
    let (uses, by_weight) = (model.graph.use_counts(), list.iter().map(|c| (c.weight, c)).collect::<HashMap<_, _>>());
    let mut found = vec![];
    for (at, node) in model.graph.nodes.iter().enumerate() {
        let candidate = node.input(1).filter(|id| uses.get(id) == Some(&1)).and_then(|id| by_weight.get(&id));
        let (Some(candidate), Some(_)) = (candidate, node.input(0)) else { continue };
        let shape = model.values.tensor(candidate.weight).map(|t| t.shape().to_vec()).unwrap_or_default();
        if let Some(products) = Products::of(node, &shape) {
            found.push(Reader { at, products, candidate });
        }
    }
    let known: Vec<_> = found.iter().map(|r| r.candidate.weight).collect();
    let others = list.iter().filter(|c| !known.contains(&c.weight)).map(|c| c.name.clone()).collect();
    (found, others)
}

/// The first batches of a source, to be run layer by layer.
///
/// # Errors
/// [`TrainError::Data`] if there is none; errors of the data.
pub(crate) fn layerwise(model: &Model, source: &GradientSource, batches: u64) -> Result<Layerwise> {
    let batches = usize::try_from(batches).unwrap_or(usize::MAX);
    let inputs = source.data.epoch(source.epoch).take(batches).map(|batch| batch.map(|b: Batch| b.inputs));
    let inputs: Vec<Named> = inputs.collect::<Result<_, TrainError>>()?;
    if inputs.is_empty() {
        return Err(TrainError::Data("there is no batch to run".into()).into());
    }
    Ok(Layerwise::new(model, inputs))
}

/// What a layer multiplies in the network as it is now, and for each group of its outputs the sums of products, with a share `damping` of
/// their mean added to the diagonal.
///
/// # Errors
/// Errors of running the graph.
pub(crate) fn power(model: &Model, states: &mut Layerwise, reader: &Reader, damping: f64) -> Result<(LayerInputs, Vec<Vec<f64>>)> {
    let node = &model.graph.nodes[reader.at];
    let shape = model.values.tensor(reader.candidate.weight).map(|t| t.shape().to_vec()).unwrap_or_default();
    let layer = LayerInputs::new(model, node, reader.products, &shape)?;
    let mut power = InputPower::new(&layer);
    for state in states.before(model, reader.at)? {
        let data = node.input(0).and_then(|data| state.get(&data).or(model.values.tensor(data)));
        let missing = || TrainError::Value { value: reader.candidate.name.clone(), what: "its layer reads nothing".into() };
        power.add(&layer, data.ok_or_else(missing)?)?;
    }
    let (k, mut groups) = (layer.row, power.groups);
    for h in &mut groups {
        let added = damping * (0..k).map(|i| h[i * k + i]).sum::<f64>() / k.max(1) as f64;
        // Inputs that are always zero take part without effect.
        (0..k).for_each(|i| h[i * k + i] += if added > 0.0 { added } else { 1.0 });
    }
    tensor::release_kept();
    Ok((layer, groups))
}
