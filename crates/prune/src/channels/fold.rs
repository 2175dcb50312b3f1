//! Channels that are a constant: what they add to the layers that read them goes into these layers' biases.
use super::dead::{Part, is_zero, parts, zeros};
use super::groups::{Channel, Groups};
use super::still::{Origins, still};
use crate::{PruneError, Result};
use graph::{Model, ValueId, ValueType};
use ops::ChannelAxis;
use std::collections::{BTreeMap, HashMap, HashSet};
use tensor::{DType, Tensor};
use train::Named;

/// A layer that reads constant channels.
struct Reader {
    node: usize,
    weight: ValueId,
    data: ValueId,
    /// The axis of the data's channels.
    axis: usize,
    channels: ops::LayerChannels,
    bias: Bias,
}

/// Where a layer's bias is.
#[derive(Clone, Copy)]
enum Bias {
    /// An f32 constant that nothing else reads, one element for each output.
    Constant(ValueId),
    /// There is none yet; this input of the node takes one.
    Absent(usize),
}

/// Folds channels whose filters are all zero, masks applied, so that they are constants `c`: each layer that reads one gets
///
/// ```text
/// b_o <- b_o + sum over the kernel of W[o, channel, k] * c,  W[o, channel, k] <- 0
/// ```
///
/// by which nothing changes, and [`super::dead`] finds the channel unread. Left as they are: channels that a padded convolution reads, where
/// zeros stand beyond the edges in place of the constant; readers with quantizers, groups, or a bias that others read. That no data reach a
/// channel, the graph tells: a factor or summand that depends on them (a gate) joins it nowhere between its filters and its readers. Which
/// constant it is, and that it is one at every position, runs on `sample` and on other numbers tell. Returns how many channels were folded.
///
/// # Errors
/// Errors of the runs; [`PruneError::Tensor`] for a weight that cannot be read.
pub fn fold_constants(model: &mut Model, groups: &Groups, sample: &Named) -> Result<usize> {
    let parts = parts(model);
    let zeros = zeros(model, &parts)?;
    let of = |channel: &Channel, wanted: Part| -> Vec<_> {
        channel.places.iter().copied().filter(|p| parts.get(&(p.value, p.axis)) == Some(&wanted)).collect()
    };
    let (mut open, origins) = (vec![], Origins::of(model)?);
    for channel in groups.groups.iter().flat_map(|g| &g.channels) {
        let (computed, read) = (of(channel, Part::Computes), of(channel, Part::Reads));
        let unweighted = !computed.is_empty() && computed.iter().all(|p| is_zero(model, &zeros, p));
        if unweighted && origins.none(channel) && read.iter().any(|p| !is_zero(model, &zeros, p)) {
            open.push(read);
        }
    }
    if open.is_empty() {
        return Ok(0);
    }
    let readers = readers(model);
    let data: HashSet<ValueId> = readers.values().map(|r| r.data).collect();
    let known = still(model, sample, &data)?;
    let (mut folded, mut constants) = (0, BTreeMap::<ValueId, Vec<(usize, f32)>>::new());
    for read in open {
        let constant = |p: &super::ChannelPlace| {
            let reader = readers.get(&p.value).filter(|r| r.channels.input_axis() == p.axis)?;
            let constant = (*known.get(&(reader.data, reader.axis))?.get(p.index)?)?;
            Some((p.value, p.index, constant))
        };
        let Some(found) = read.iter().map(constant).collect::<Option<Vec<_>>>() else { continue };
        if found.iter().all(|(_, _, c)| *c == 0.0) {
            continue;
        }
        folded += 1;
        for (weight, index, c) in found {
            constants.entry(weight).or_default().push((index, c));
        }
    }
    for (weight, constants) in &constants {
        fold(model, &readers[weight], constants)?;
    }
    Ok(folded)
}

/// The layers that constants can be folded into, by their weight.
fn readers(model: &Model) -> HashMap<ValueId, Reader> {
    let (uses, mut found) = (model.graph.use_counts(), HashMap::new());
    let types = ops::infer_types(model).unwrap_or_default();
    let plain = |id: ValueId| model.annotations.encoding(id).is_none();
    for (at, node) in model.graph.nodes.iter().enumerate() {
        let (Some(data), Some(weight)) = (node.input(0), node.input(1)) else { continue };
        let Some(tensor) = model.values.tensor(weight).filter(|t| t.dtype() == DType::F32) else { continue };
        let Some(channels) = ops::keeps_constants(node, tensor.shape()) else { continue };
        let outputs = channels.counts(tensor.shape()).1;
        let bias = match (channels.bias, channels.bias.and_then(|i| node.input(i))) {
            (Some(_), Some(id)) => {
                let own = model.values.tensor(id).is_some_and(|t| t.dtype() == DType::F32 && t.shape() == [outputs]);
                if !own || uses.get(&id) != Some(&1) || !plain(id) {
                    continue;
                }
                Bias::Constant(id)
            }
            (Some(input), None) => Bias::Absent(input),
            // A matrix product and what is added to it.
            (None, _) => match added(model, node, outputs).filter(|id| uses.get(id) == Some(&1) && plain(*id)) {
                Some(id) => Bias::Constant(id),
                None => continue,
            },
        };
        let axis = match (channels.at, types.get(&data)) {
            (ChannelAxis::Second, _) => 1,
            (ChannelAxis::Last, Some(ValueType::Tensor { shape: Some(shape), .. })) if !shape.is_empty() => shape.len() - 1,
            _ => continue,
        };
        if uses.get(&weight) == Some(&1) && plain(data) && plain(weight) {
            found.insert(weight, Reader { node: at, weight, data, axis, channels, bias });
        }
    }
    found
}

/// The constant that alone is added to a matrix product, one element for each output.
fn added(model: &Model, node: &graph::Node, outputs: usize) -> Option<ValueId> {
    let out = node.output(0)?;
    let consumers = model.graph.consumers(out);
    let [only] = consumers.as_slice() else { return None };
    let next = &model.graph.nodes[*only];
    let (_, offset) = ops::Roles::of(model).bias_of(next)?;
    let id = next.input(offset)?;
    let fits = model.values.tensor(id).is_some_and(|t| t.dtype() == DType::F32 && t.len() == outputs);
    (fits && !model.graph.outputs.contains(&out)).then_some(id)
}

/// Moves what constants add to a layer's outputs into its bias.
fn fold(model: &mut Model, reader: &Reader, constants: &[(usize, f32)]) -> Result<()> {
    let name = model.values[reader.weight].name.clone();
    let wrong = |source| PruneError::Tensor { weight: name.clone(), source };
    let Some(tensor) = model.values.tensor(reader.weight) else { return Ok(()) };
    let (shape, mut weight) = (tensor.shape().to_vec(), tensor.to_f32_vec().map_err(wrong)?);
    let live = match model.annotations.mask(reader.weight) {
        Some(mask) => mask.as_slice::<bool>().map_err(wrong)?.to_vec(),
        None => vec![true; weight.len()],
    };
    let by_input: HashMap<usize, f32> = constants.iter().copied().collect();
    let mut sums = vec![0f64; reader.channels.counts(&shape).1];
    reader.channels.each(&shape, |at, input, output| {
        if let Some(c) = by_input.get(&input) {
            sums[output] += if live[at] { f64::from(weight[at]) * f64::from(*c) } else { 0.0 };
            weight[at] = 0.0;
        }
    });
    model.values.set_tensor(reader.weight, Tensor::new(weight, shape).map_err(wrong)?);
    match reader.bias {
        Bias::Constant(id) => {
            let Some(bias) = model.values.tensor(id) else { return Ok(()) };
            let shape = bias.shape().to_vec();
            let list: Vec<f32> = bias.to_f32_vec().map_err(wrong)?.iter().zip(&sums).map(|(b, s)| (f64::from(*b) + s) as f32).collect();
            model.values.set_tensor(id, Tensor::new(list, shape).map_err(wrong)?);
        }
        Bias::Absent(input) => {
            let fresh = model.fresh_name(&format!("{name}_bias"));
            let id = model.values.add_constant(fresh, Tensor::vector(sums.iter().map(|s| *s as f32).collect::<Vec<_>>()));
            model.graph.constants.push(id);
            let inputs = &mut model.graph.nodes[reader.node].inputs;
            inputs.resize(inputs.len().max(input + 1), None);
            inputs[input] = Some(id);
        }
    }
    model.source = None;
    Ok(())
}
