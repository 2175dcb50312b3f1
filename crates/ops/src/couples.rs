//! How the axes of a node's inputs and outputs go together when channels are removed: each operator says it in its own file
//! ([`crate::Operator::couples`]), and how its attributes follow ([`crate::Operator::cut`]).
use crate::OpError;
use crate::simple::{Constants, set_input};
use graph::{Dim, Model, Node};
use tensor::Tensor;

/// An axis of one of a node's inputs or outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Input index and axis.
    Input(usize, usize),
    /// Output index and axis.
    Output(usize, usize),
}

/// The facts about a node that couplings depend on. A size that only data decide is not [`Dim::Known`].
pub struct CouplesCx<'a> {
    /// The node.
    pub node: &'a Node,
    /// The model that it is in.
    pub model: &'a Model,
    /// Version of the operator set.
    pub opset: i64,
    /// Shapes of the inputs.
    pub inputs: Vec<Option<Vec<Dim>>>,
    /// Shapes of the outputs.
    pub outputs: Vec<Option<Vec<Dim>>>,
    /// Elements of inputs that are the same in every run.
    pub elements: Vec<Option<Tensor>>,
    /// Which inputs depend on what the network is given, so that no parameter decides them alone.
    pub computed: Vec<bool>,
}

impl CouplesCx<'_> {
    /// Shape of an input.
    pub fn input(&self, i: usize) -> Option<&[Dim]> {
        self.inputs.get(i)?.as_deref()
    }

    /// Shape of an output.
    pub fn output(&self, i: usize) -> Option<&[Dim]> {
        self.outputs.get(i)?.as_deref()
    }

    /// Size of an axis, if it is known.
    pub fn size(&self, place: Place) -> Option<usize> {
        match place {
            Place::Input(i, axis) => self.input(i)?.get(axis)?.known(),
            Place::Output(i, axis) => self.output(i)?.get(axis)?.known(),
        }
    }

    /// Integers of an input that is the same in every run.
    pub fn ints(&self, i: usize) -> Option<Vec<i64>> {
        self.elements.get(i)?.as_ref()?.to_i64_vec().ok()
    }
}

/// Indices of two axes that are removed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tie {
    /// One axis.
    pub a: Place,
    /// The other.
    pub b: Place,
    /// Which index goes with which; `None`: equal ones.
    pub pairs: Option<Vec<(usize, usize)>>,
}

/// What an operator says about its axes. An axis that it does not mention keeps all its indices.
#[derive(Clone, Debug, Default)]
pub struct Couples {
    /// Indices that are removed together.
    pub ties: Vec<Tie>,
    /// Ties of which one holds, the first that leaves something to remove: a reshape that splits an axis keeps all parts but one.
    pub alternatives: Vec<Tie>,
    /// Axes whose indices may be removed without another of this node.
    pub free: Vec<Place>,
    /// Why the other axes keep their indices; by default, that the operator computes across them.
    pub reason: Option<String>,
}

impl Couples {
    /// Equal indices go together.
    pub fn tie(&mut self, a: Place, b: Place) {
        self.ties.push(Tie { a, b, pairs: None });
    }

    /// These indices go together.
    pub fn tie_at(&mut self, a: Place, b: Place, pairs: impl IntoIterator<Item = (usize, usize)>) {
        self.ties.push(Tie { a, b, pairs: Some(pairs.into_iter().collect()) });
    }
}

/// The function that says how an operator's axes go together.
pub(crate) type CouplesRule = fn(&CouplesCx, &mut Couples) -> Result<(), OpError>;
/// The function that adapts an operator's attributes and shape inputs to removed indices.
pub(crate) type CutRule = fn(&CutCx, &mut Node, Constants) -> Result<(), OpError>;

/// Removed indices, as a node sees them.
pub struct CutCx<'a> {
    /// The node's facts before anything was removed.
    pub before: &'a CouplesCx<'a>,
    /// The indices that an axis keeps, in order; `None` if it keeps all.
    pub kept: &'a dyn Fn(Place) -> Option<Vec<usize>>,
}

impl CutCx<'_> {
    /// How many of an axis' first `n` indices are kept.
    pub(crate) fn kept_of_first(&self, place: Place, n: usize) -> usize {
        match (self.kept)(place) {
            Some(kept) => kept.iter().filter(|i| **i < n).count(),
            None => n,
        }
    }

    /// Size of an axis afterwards.
    pub(crate) fn size(&self, place: Place) -> Option<usize> {
        (self.kept)(place).map(|kept| kept.len()).or_else(|| self.before.size(place))
    }
}

/// Puts a list of integers in place of an input.
pub(crate) fn set_ints(node: &mut Node, input: usize, name: &str, list: Vec<i64>, constants: Constants) {
    let value = constants(name, Tensor::vector(list));
    set_input(node, input, value);
}

/// All inputs and outputs of one shape after broadcasting: an axis of size 1 is repeated and loses nothing.
pub(crate) fn elementwise(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    // Before operator set 7, attributes specified the broadcast.
    if cx.node.attributes.get("broadcast").is_none() {
        broadcast(cx, out, 0..cx.inputs.len(), 0);
    }
    Ok(())
}

/// The first input and all outputs have one shape; other inputs are bounds and settings.
pub(crate) fn first_elementwise(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    broadcast(cx, out, 0..1, 0);
    Ok(())
}

/// As [`elementwise`] for some inputs, without the last `skip` axes.
pub(crate) fn broadcast(cx: &CouplesCx, out: &mut Couples, inputs: std::ops::Range<usize>, skip: usize) {
    let Some(result) = cx.output(0).map(<[Dim]>::to_vec) else { return };
    for axis in 0..result.len().saturating_sub(skip) {
        let mut places: Vec<Place> = (0..cx.outputs.len())
            .filter(|o| skip == 0 && cx.output(*o).is_some_and(|s| s == result.as_slice()) || *o == 0)
            .map(|o| Place::Output(o, axis))
            .collect();
        for i in inputs.clone() {
            let Some(shape) = cx.input(i) else { continue };
            let Some(own) = (axis + shape.len()).checked_sub(result.len()).filter(|own| *own < shape.len()) else { continue };
            if shape[own] == result[axis] {
                places.push(Place::Input(i, own));
            }
        }
        out.free.push(places[0]);
        places.windows(2).for_each(|pair| out.tie(pair[0], pair[1]));
    }
}

/// Axes of the first input that the first output has at the same place.
pub(crate) fn pass(out: &mut Couples, axes: impl IntoIterator<Item = usize>) {
    axes.into_iter().for_each(|axis| out.tie(Place::Input(0, axis), Place::Output(0, axis)));
}

/// Batch and channels pass; what lies in the other axes is computed with. Where a second output says where elements were, it counts
/// through all channels.
pub(crate) fn channelwise(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    if cx.node.output(1).is_some() {
        out.reason = Some("its second output counts elements through all channels".into());
        return Ok(());
    }
    pass(out, 0..cx.input(0).map_or(0, <[Dim]>::len).min(2));
    Ok(())
}

/// The same elements under another shape. Equal axes go together; where one axis becomes several or several one, one of the several
/// takes part (`outer_first`: which to try first) and the others keep all their indices.
pub(crate) fn regrouped(from: &[Dim], to: &[Dim], outer_first: bool, out: &mut Couples) {
    let wide = |dims: &[Dim]| (0..dims.len()).filter(|i| dims[*i] != Dim::Known(1)).collect::<Vec<_>>();
    let (mut a, mut b) = (wide(from), wide(to));
    let same = |x: &Dim, y: &Dim| x == y && *x != Dim::Unknown;
    // Axes at both ends that are equal, whatever lies between.
    let mut ends = vec![];
    if a.iter().any(|i| from[*i].known().is_none()) || b.iter().any(|i| to[*i].known().is_none()) {
        while let (Some(x), Some(y)) = (a.first(), b.first())
            && same(&from[*x], &to[*y])
        {
            ends.push((a.remove(0), b.remove(0)));
        }
        while let (Some(x), Some(y)) = (a.last().copied(), b.last().copied())
            && same(&from[x], &to[y])
        {
            ends.push((x, y));
            a.pop();
            b.pop();
        }
    }
    ends.into_iter().for_each(|(x, y)| out.tie(Place::Input(0, x), Place::Output(0, y)));
    let known = |dims: &[Dim], list: &[usize]| list.iter().map(|i| dims[*i].known()).collect::<Option<Vec<usize>>>();
    let (Some(sizes), Some(new)) = (known(from, &a), known(to, &b)) else { return };
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        let (start_i, start_j) = (i, j);
        let (mut left, mut right) = (sizes[i], new[j]);
        (i, j) = (i + 1, j + 1);
        while left != right {
            match left < right {
                true if i < a.len() => {
                    left *= sizes[i];
                    i += 1;
                }
                false if j < b.len() => {
                    right *= new[j];
                    j += 1;
                }
                _ => return,
            }
        }
        match (i - start_i, j - start_j) {
            (1, 1) => out.tie(Place::Input(0, a[start_i]), Place::Output(0, b[start_j])),
            (1, _) => {
                let parts = carried(&new[start_j..j]).into_iter().enumerate();
                let mut ties: Vec<Tie> = parts
                    .map(|(k, pairs)| Tie { a: Place::Input(0, a[start_i]), b: Place::Output(0, b[start_j + k]), pairs: Some(pairs) })
                    .collect();
                if !outer_first {
                    ties.reverse();
                }
                out.alternatives.append(&mut ties);
            }
            (_, 1) => {
                let whole = b[start_j];
                let turn = |pairs: Vec<(usize, usize)>| Some(pairs.into_iter().map(|(x, y)| (y, x)).collect());
                let mut ties: Vec<(usize, Tie)> = carried(&sizes[start_i..i])
                    .into_iter()
                    .enumerate()
                    .map(|(k, pairs)| {
                        let tie = Tie { a: Place::Input(0, a[start_i + k]), b: Place::Output(0, whole), pairs: turn(pairs) };
                        (sizes[start_i + k], tie)
                    })
                    .collect();
                ties.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
                out.alternatives.extend(ties.into_iter().map(|(_, tie)| tie));
            }
            _ => {}
        }
    }
}

/// For an axis that is split into parts: for each part, the pairs (index in the whole, index in the part).
fn carried(parts: &[usize]) -> Vec<Vec<(usize, usize)>> {
    let whole: usize = parts.iter().product();
    let mut inner = whole;
    parts
        .iter()
        .map(|part| {
            inner /= (*part).max(1);
            let inner = inner.max(1);
            (0..whole).map(|i| (i, i / inner % part)).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(list: &[usize]) -> Vec<Dim> {
        list.iter().map(|d| Dim::Known(*d)).collect()
    }

    #[test]
    fn a_flattened_image_goes_with_its_channels() {
        let mut out = Couples::default();
        regrouped(&dims(&[2, 3, 4, 1]), &dims(&[2, 12]), true, &mut out);
        assert_eq!(out.ties, [Tie { a: Place::Input(0, 0), b: Place::Output(0, 0), pairs: None }]);
        let tie = out.alternatives.iter().find(|t| t.a == Place::Input(0, 1)).unwrap();
        assert_eq!(tie.pairs.as_ref().unwrap()[3..6], [(0, 3), (1, 4), (1, 5)]);
    }

    #[test]
    fn open_sizes_at_the_ends_do_not_hide_a_split() {
        let (n, t) = (Dim::Symbol("n".into()), Dim::Symbol("t".into()));
        let mut out = Couples::default();
        regrouped(&[n.clone(), t.clone(), Dim::Known(6)], &[n, t, Dim::Known(2), Dim::Known(3)], true, &mut out);
        assert_eq!(out.ties.len(), 2);
        assert_eq!(out.alternatives[0].pairs.as_ref().unwrap()[2..4], [(2, 0), (3, 1)]);
        assert_eq!(out.alternatives[1].pairs.as_ref().unwrap()[2..4], [(2, 2), (3, 0)]);
        let mut out = Couples::default();
        regrouped(&[Dim::Unknown, Dim::Known(6)], &[Dim::Known(2), Dim::Unknown], true, &mut out);
        assert!(out.ties.is_empty() && out.alternatives.is_empty());
    }
}
