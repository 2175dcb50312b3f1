//! Reverse-mode differentiation: each recorded operation keeps a closure that turns the gradient of its outputs into the
//! gradients of its inputs. The record is a graph of reference-counted nodes, so nodes that no live tensor depends on are freed
//! at once, and each closure (with the activations it holds) is dropped as soon as it has run.
use crate::device::on_device;
use crate::map::zip_onto;
use crate::{DType, Result, Tensor, TensorError, profile};
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

type BackwardFn = Box<dyn FnOnce(Vec<Option<Tensor>>) -> Result<Vec<Option<Tensor>>> + Send>;
type AgainFn = Box<dyn FnOnce(Vec<Tensor>) -> Result<Vec<Tensor>> + Send>;

/// How gradients pass from a node to its parents.
enum Backward {
    /// A closure computes the gradients of the inputs from those of the outputs.
    Gradients(BackwardFn),
    /// The operations are run again, now recorded, and the backward pass continues through that record. `slots` are the positions
    /// of the outputs among the node's.
    Replay { inputs: Vec<Tensor>, slots: Vec<Option<usize>>, again: AgainFn },
}

/// A recorded operation, or a leaf (no closure) whose gradient is requested.
pub(crate) struct GradNode {
    id: u64,
    name: &'static str,
    parents: Vec<Option<GradRef>>,
    outputs: usize,
    backward: Mutex<Option<Backward>>,
}

/// One output of a recorded operation.
#[derive(Clone)]
pub(crate) struct GradRef {
    node: Arc<GradNode>,
    output: usize,
}

impl GradRef {
    fn is(&self, other: &GradRef) -> bool {
        Arc::ptr_eq(&self.node, &other.node) && self.output == other.output
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Drop for GradNode {
    /// Unlinks long chains without recursion: a recurrent network's record is deeper than the stack.
    fn drop(&mut self) {
        let mut pending: Vec<GradRef> = self.parents.drain(..).flatten().collect();
        // A closure may own tensors that are themselves tracked; kernels keep detached copies, so this stays shallow.
        while let Some(link) = pending.pop() {
            if let Ok(mut node) = Arc::try_unwrap(link.node).map_err(drop) {
                pending.extend(node.parents.drain(..).flatten());
            }
        }
    }
}

/// Gradients of one backward pass, by leaf.
#[derive(Default)]
pub struct Gradients {
    by_id: HashMap<u64, Tensor>,
}

impl Gradients {
    /// The gradient of a leaf, removed from the set; `None` if the loss does not depend on it.
    pub fn take(&mut self, leaf: &Tensor) -> Option<Tensor> {
        self.by_id.remove(&leaf.grad.as_ref()?.node.id)
    }

    /// The gradient of a leaf; `None` if the loss does not depend on it.
    pub fn get(&self, leaf: &Tensor) -> Option<&Tensor> {
        self.by_id.get(&leaf.grad.as_ref()?.node.id)
    }
}

/// Records a one-output operation if any input is tracked, and returns the output.
///
/// `backward` gets the gradient of the output and returns one gradient for each input (`None` where there is none).
/// It should keep [`Tensor::detach`]ed inputs only, and may skip inputs that are not tracked.
pub fn record(
    name: &'static str,
    inputs: &[&Tensor],
    output: Tensor,
    backward: impl FnOnce(Tensor) -> Result<Vec<Option<Tensor>>> + Send + 'static,
) -> Tensor {
    if !inputs.iter().any(|t| t.is_tracked()) {
        return output;
    }
    let mut out = record_many(name, inputs, vec![output], move |mut dy| match dy.pop().flatten() {
        Some(dy) => backward(dy),
        None => Ok(vec![]),
    });
    out.remove(0)
}

/// Records an operation with several outputs; `backward` gets one optional gradient for each output.
pub fn record_many(
    name: &'static str,
    inputs: &[&Tensor],
    mut outputs: Vec<Tensor>,
    backward: impl FnOnce(Vec<Option<Tensor>>) -> Result<Vec<Option<Tensor>>> + Send + 'static,
) -> Vec<Tensor> {
    if !inputs.iter().any(|t| t.is_tracked()) {
        return outputs;
    }
    let node = Arc::new(GradNode {
        id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        name,
        parents: inputs.iter().map(|t| t.grad.clone()).collect(),
        outputs: outputs.len(),
        backward: Mutex::new(Some(Backward::Gradients(Box::new(backward)))),
    });
    for (i, out) in outputs.iter_mut().enumerate() {
        out.grad = out.dtype().is_float().then(|| GradRef { node: node.clone(), output: i });
    }
    outputs
}

/// Replaces the record of some operations by running them again: `outputs` were computed from `inputs` by recorded operations;
/// their record is dropped, and the backward pass calls `again` on the same inputs for the same outputs, recorded anew.
///
/// The backward pass then walks that record in place of the first one, in the same order, so gradients are the same to the bit.
/// An output that is one of the inputs, or that depends on no tracked input, is returned as it is.
///
/// # Source
/// Chen et al. 2016, arXiv:1604.06174.
pub fn record_replay(
    name: &'static str,
    inputs: &[Tensor],
    mut outputs: Vec<Tensor>,
    again: impl FnOnce(Vec<Tensor>) -> Result<Vec<Tensor>> + Send + 'static,
) -> Vec<Tensor> {
    let is_input = |r: &GradRef| inputs.iter().filter_map(|t| t.grad.as_ref()).any(|i| i.is(r));
    // Outputs that share a record entry continue to share one.
    let mut distinct: Vec<GradRef> = vec![];
    let slots: Vec<Option<usize>> = outputs
        .iter()
        .map(|t| {
            let own = t.grad.as_ref().filter(|r| !is_input(r))?;
            Some(distinct.iter().position(|k| k.is(own)).unwrap_or_else(|| {
                distinct.push(own.clone());
                distinct.len() - 1
            }))
        })
        .collect();
    if distinct.is_empty() {
        return outputs;
    }
    let replay = Backward::Replay { inputs: inputs.iter().map(Tensor::detach).collect(), slots: slots.clone(), again: Box::new(again) };
    let node = Arc::new(GradNode {
        id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        name,
        parents: inputs.iter().map(|t| t.grad.clone()).collect(),
        outputs: distinct.len(),
        backward: Mutex::new(Some(replay)),
    });
    for (out, slot) in outputs.iter_mut().zip(slots) {
        if let Some(output) = slot {
            out.grad = Some(GradRef { node: node.clone(), output });
        }
    }
    outputs
}

impl Tensor {
    /// This tensor as a leaf whose gradient is requested.
    ///
    /// # Errors
    /// [`TensorError::DType`] if its elements are not floats.
    pub fn tracked(&self) -> Result<Tensor> {
        if !self.dtype().is_float() {
            return Err(TensorError::dtype("gradient", self.dtype(), "has no gradient"));
        }
        let node =
            GradNode { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), name: "leaf", parents: vec![], outputs: 1, backward: Mutex::new(None) };
        let mut t = self.clone();
        t.grad = Some(GradRef { node: Arc::new(node), output: 0 });
        Ok(t)
    }

    /// The same values without a record.
    pub fn detach(&self) -> Tensor {
        let mut t = self.clone();
        t.grad = None;
        t
    }

    /// True if an operation on this tensor will be recorded.
    pub fn is_tracked(&self) -> bool {
        self.grad.is_some()
    }

    /// Gradients of this scalar by every leaf it depends on.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if it does not have exactly one element, and whatever a recorded operation reports.
    pub fn backward(&self) -> Result<Gradients> {
        if self.len() != 1 {
            return Err(TensorError::shape("backward", format!("a loss has one element, this has shape {:?}", self.shape())));
        }
        let one = match self.dtype() {
            DType::F64 => Tensor::full(1f64, self.shape())?,
            DType::F32 => Tensor::full(1f32, self.shape())?,
            other => return Err(TensorError::dtype("backward", other, "cannot be a loss: f32 or f64 is needed")),
        };
        #[cfg(feature = "gpu")]
        if self.on_device()
            && let Some(one) = crate::gpu::to_device(&one)?
        {
            return self.backward_from(one);
        }
        self.backward_from(one)
    }

    /// Gradients of `sum(self * seed)` by every leaf.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if `seed` has another shape, and whatever a recorded operation reports.
    pub fn backward_from(&self, seed: Tensor) -> Result<Gradients> {
        self.walk(seed, &mut |_, _| true)
    }

    /// The operation of the record that first turns finite gradients of `sum(self)` into infinite ones or NaN: its position in
    /// the order of recording, comparable with [`Tensor::recorded_at`]. Uses up the record, as [`Tensor::backward`] does.
    ///
    /// # Errors
    /// As [`Tensor::backward_from`].
    pub fn find_infinite_slope(&self) -> Result<Option<u64>> {
        let mut found = None;
        self.walk(self.ones_like()?, &mut |at, gradients| {
            let bad = gradients.iter().flatten().any(|g| g.to_f64_vec().is_ok_and(|v| v.iter().any(|v| !v.is_finite())));
            found = found.or(bad.then_some(at));
            found.is_none()
        })?;
        Ok(found)
    }

    /// The position in the order of recording of the operation that computed this tensor, if it was recorded.
    pub fn recorded_at(&self) -> Option<u64> {
        self.grad.as_ref().map(|g| g.node.id)
    }

    /// The backward pass. `go_on` gets each operation's position and its gradients, and may end the walk.
    fn walk(&self, seed: Tensor, go_on: &mut dyn FnMut(u64, &[Option<Tensor>]) -> bool) -> Result<Gradients> {
        let Some(root) = &self.grad else { return Ok(Gradients::default()) };
        if seed.shape() != self.shape() {
            return Err(TensorError::shape("backward", format!("seed {:?} for a tensor of shape {:?}", seed.shape(), self.shape())));
        }
        let mut done = Gradients::default();
        let mut pending: HashMap<u64, Vec<Option<Tensor>>> = HashMap::new();
        // Ids grow with time, so the largest pending id never has an unvisited descendant.
        let mut order: BinaryHeap<Pending> = BinaryHeap::new();
        accumulate(&mut pending, &mut order, root, seed)?;
        while let Some(Pending(node)) = order.pop() {
            let mut grads = pending.remove(&node.id).unwrap_or_default();
            let closure = node.backward.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
            match closure {
                Some(Backward::Replay { inputs, slots, again }) => {
                    let mut inputs = inputs;
                    inputs.iter_mut().zip(&node.parents).for_each(|(t, parent)| t.grad = parent.clone());
                    let outputs = profile::section(|| node.name.into(), || again(inputs))?;
                    // The new nodes' ids are larger than all pending ones: they are walked first.
                    for (out, slot) in outputs.iter().zip(slots) {
                        let Some(grad) = slot.and_then(|s| grads.get_mut(s)?.take()) else { continue };
                        let Some(to) = &out.grad else {
                            return Err(TensorError::value(
                                "backward",
                                format!("{} gives different values when it is recomputed", node.name),
                            ));
                        };
                        accumulate(&mut pending, &mut order, to, grad)?;
                    }
                }
                Some(Backward::Gradients(run)) => {
                    let name = node.name;
                    let out = profile::section(|| format!("{name} backward"), || run(grads))?;
                    if !go_on(node.id, &out) {
                        return Ok(done);
                    }
                    for (parent, grad) in node.parents.iter().zip(out) {
                        if let (Some(parent), Some(grad)) = (parent, grad) {
                            debug_assert!(!grad.is_tracked(), "{name} returned a tracked gradient");
                            accumulate(&mut pending, &mut order, parent, grad)?;
                        }
                    }
                }
                None if node.parents.is_empty() => {
                    if let Some(grad) = grads.pop().flatten() {
                        done.by_id.insert(node.id, grad);
                    }
                }
                None => return Err(TensorError::unsupported("backward", format!("{} was already differentiated once", node.name))),
            }
        }
        Ok(done)
    }
}

struct Pending(Arc<GradNode>);
impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}
impl Eq for Pending {}
impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Pending {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

fn accumulate(pending: &mut HashMap<u64, Vec<Option<Tensor>>>, order: &mut BinaryHeap<Pending>, to: &GradRef, grad: Tensor) -> Result<()> {
    let slots = pending.entry(to.node.id).or_insert_with(|| {
        order.push(Pending(to.node.clone()));
        vec![None; to.node.outputs]
    });
    let slot = &mut slots[to.output];
    *slot = Some(match slot.take() {
        None => grad,
        Some(sum) => add_into(sum, grad)?,
    });
    Ok(())
}

/// `sum + grad`, written into the storage of one without other references.
fn add_into(mut sum: Tensor, grad: Tensor) -> Result<Tensor> {
    if sum.shape() != grad.shape() || sum.dtype() != grad.dtype() {
        return Err(TensorError::shape("backward", format!("gradients {sum:?} and {grad:?} of one value differ")));
    }
    on_device!(crate::gpu::binary("add_values", &sum, &grad));
    match sum.dtype() {
        DType::F32 if sum.unshared::<f32>().is_some() => return zip_onto("backward", sum, &grad, |a: f32, b| a + b),
        DType::F32 => return zip_onto("backward", grad, &sum, |a: f32, b| a + b),
        DType::F64 => return zip_onto("backward", sum, &grad, |a: f64, b| a + b),
        DType::F16 => add_slices(sum.as_mut_slice::<half::f16>()?, grad.as_slice::<half::f16>()?),
        DType::BF16 => add_slices(sum.as_mut_slice::<half::bf16>()?, grad.as_slice::<half::bf16>()?),
        other => return Err(TensorError::dtype("backward", other, "has no gradient")),
    }
    Ok(sum)
}

fn add_slices<T: Copy + std::ops::Add<Output = T>>(a: &mut [T], b: &[T]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a = *a + *b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::check;
    use crate::random::{uniform, uniform_f64};

    /// `x * w`, a function of `x * w` and `x`, `x` itself, and the first once more.
    fn products(i: &[Tensor]) -> Result<Vec<Tensor>> {
        let y = i[0].mul(&i[1])?;
        Ok(vec![y.clone(), y.mul(&i[0])?.tanh()?.tanh()?.tanh()?, i[0].clone(), y])
    }

    /// The same, done again in the backward pass.
    fn replayed(i: &[Tensor]) -> Result<Vec<Tensor>> {
        Ok(record_replay("again", i, products(i)?, |i| products(&i)))
    }

    fn chain(i: &[Tensor], part: fn(&[Tensor]) -> Result<Vec<Tensor>>) -> Result<Tensor> {
        let first = part(i)?;
        let second = part(&[first[1].clone(), i[1].clone()])?;
        // Every value has several readers, in and out of the parts.
        let ends = [&second[1], &second[0], &first[0], &first[2], &second[2], &first[3]];
        ends.into_iter().try_fold(i[0].clone(), |sum, t| sum.add(&t.mul(&i[1])?))
    }

    #[test]
    fn work_done_again_gives_the_gradients_of_central_differences() {
        check(&[uniform_f64(1, &[5], -1.0, 1.0), uniform_f64(2, &[5], 0.5, 1.5)], |i| chain(i, replayed)).unwrap();
    }

    #[test]
    fn work_done_again_gives_the_same_bits_and_keeps_less() {
        let run = |part: fn(&[Tensor]) -> Result<Vec<Tensor>>| {
            let begin = crate::memory::live();
            let leaves: Vec<Tensor> = (3..5).map(|s| uniform(s, &[1000], -1.0, 1.0).unwrap().tracked().unwrap()).collect();
            let y = chain(&leaves, part).unwrap();
            let kept = crate::memory::live() - begin;
            let mut g = y.backward_from(Tensor::full(1f32, [1000]).unwrap()).unwrap();
            (y.detach(), leaves.iter().map(|l| g.take(l).unwrap()).collect::<Vec<_>>(), kept)
        };
        let (plain, again) = (run(products), run(replayed));
        assert_eq!((&plain.0, &plain.1), (&again.0, &again.1));
        assert!(again.2 < plain.2, "{} bytes are kept instead of {}", again.2, plain.2);
    }

    #[test]
    fn what_no_tracked_input_leads_to_is_not_recorded() {
        let (x, w) = (uniform(1, &[3], 0.0, 1.0).unwrap(), uniform(2, &[3], 0.0, 1.0).unwrap());
        assert!(replayed(&[x.clone(), w.clone()]).unwrap().iter().all(|t| !t.is_tracked()));
        let y = replayed(&[x.clone(), w.tracked().unwrap()]).unwrap();
        assert_eq!(y.iter().map(Tensor::is_tracked).collect::<Vec<_>>(), [true, true, false, true]);
        let different = record_replay("again", &[x.clone(), w.tracked().unwrap()], y, move |i| Ok(vec![x.clone(); i.len() + 2]));
        let error = different[0].backward_from(Tensor::full(1f32, [3]).unwrap()).err().unwrap();
        assert_eq!(error.to_string(), "backward: again gives different values when it is recomputed");
    }
}
