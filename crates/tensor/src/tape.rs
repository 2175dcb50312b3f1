//! Reverse-mode differentiation: each recorded operation keeps a closure that turns the gradient of its outputs into
//! the gradients of its inputs. The record is a graph of reference-counted nodes, so whatever no live tensor descends
//! from is freed at once, and each closure (with the activations it holds) is dropped as soon as it has run.
use crate::map::zip_onto;
use crate::{DType, Result, Tensor, TensorError, profile};
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

type BackwardFn = Box<dyn FnOnce(Vec<Option<Tensor>>) -> Result<Vec<Option<Tensor>>> + Send>;

/// A recorded operation, or a leaf (no closure) whose gradient is wanted.
pub(crate) struct GradNode {
    id: u64,
    name: &'static str,
    parents: Vec<Option<GradRef>>,
    outputs: usize,
    backward: Mutex<Option<BackwardFn>>,
}

/// One output of a recorded operation.
#[derive(Clone)]
pub(crate) struct GradRef {
    node: Arc<GradNode>,
    output: usize,
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
        backward: Mutex::new(Some(Box::new(backward))),
    });
    for (i, out) in outputs.iter_mut().enumerate() {
        out.grad = out.dtype().is_float().then(|| GradRef { node: node.clone(), output: i });
    }
    outputs
}

impl Tensor {
    /// This tensor as a leaf whose gradient is wanted.
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

    /// The same values outside the record.
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
        self.backward_from(one)
    }

    /// Gradients of `sum(self * seed)` by every leaf.
    ///
    /// # Errors
    /// [`TensorError::Shape`] if `seed` has another shape, and whatever a recorded operation reports.
    pub fn backward_from(&self, seed: Tensor) -> Result<Gradients> {
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
                Some(run) => {
                    let name = node.name;
                    let out = profile::section(|| format!("{name} backward"), || run(grads))?;
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

/// `sum + grad`, written into the storage of whichever nobody else holds.
fn add_into(mut sum: Tensor, grad: Tensor) -> Result<Tensor> {
    if sum.shape() != grad.shape() || sum.dtype() != grad.dtype() {
        return Err(TensorError::shape("backward", format!("gradients {sum:?} and {grad:?} of one value differ")));
    }
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
