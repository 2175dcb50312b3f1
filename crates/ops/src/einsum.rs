//! Einsum: products and sums of axes named by letters.
use crate::shapes::{broadcast_dims, like_first, unknown};
use crate::simple::{Simple, one};
use crate::{EvalCx, Inputs, MacsCx, OpError, Operator, Role, ShapeCx};
use graph::{Dim, Node, ValueType};
use std::collections::BTreeMap;
use tensor::Tensor;

pub(crate) static OPERATORS: &[&dyn Operator] =
    &[&Simple::new("Einsum", "Sums of products, by letters that name the axes.", &[12, 28], einsum, infer).role(role).macs(macs)];

fn role(_: &Node, input: usize) -> Role {
    if input == 0 { Role::Data } else { Role::Weight }
}

/// A label: a letter of the equation, or one of the axes of an ellipsis, counted from its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Label {
    Ellipsis(usize),
    Letter(char),
}

/// An equation with its ellipses written out for operands of given ranks.
struct Equation {
    operands: Vec<Vec<Label>>,
    output: Vec<Label>,
}

/// One term's labels, with `width` axes for its ellipsis.
fn term(node: &Node, text: &str, width: usize) -> Result<Vec<Label>, OpError> {
    let mut labels = vec![];
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...") {
            labels.extend((0..width).rev().map(Label::Ellipsis));
            rest = after;
        } else if c.is_ascii_alphabetic() {
            labels.push(Label::Letter(c));
            rest = &rest[1..];
        } else {
            return Err(node.attribute_error("equation", format!("has '{c}' in '{text}'")).into());
        }
    }
    Ok(labels)
}

fn parse(node: &Node, ranks: &[usize]) -> Result<Equation, OpError> {
    let text: String = node.string_or("equation", "")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((l, r)) => (l, Some(r)),
        None => (text.as_str(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != ranks.len() {
        return Err(node.attribute_error("equation", format!("'{text}' has {} terms for {} inputs", terms.len(), ranks.len())).into());
    }
    let mut operands = vec![];
    let mut widest = 0;
    for (t, rank) in terms.iter().zip(ranks) {
        let letters = t.chars().filter(char::is_ascii_alphabetic).count();
        let width = if t.contains("...") { rank.checked_sub(letters) } else { Some(0) };
        let labels = width.map(|w| term(node, t, w)).transpose()?.filter(|l| l.len() == *rank);
        let labels = labels.ok_or_else(|| node.attribute_error("equation", format!("term '{t}' for an input of {rank} axes")))?;
        widest = widest.max(width.unwrap_or(0));
        operands.push(labels);
    }
    let output = match right {
        Some(r) => term(node, r, widest)?,
        None => implied_output(&operands, widest),
    };
    let known = |l: &Label| operands.iter().flatten().any(|o| o == l);
    let repeated = output.iter().enumerate().any(|(i, l)| output[..i].contains(l));
    if repeated || !output.iter().all(known) {
        return Err(node.attribute_error("equation", format!("'{text}' has an output axis that is repeated or not in any term")).into());
    }
    Ok(Equation { operands, output })
}

/// The output labels of an equation without an arrow: the ellipsis, then the letters that occur once, in alphabetical order.
fn implied_output(operands: &[Vec<Label>], widest: usize) -> Vec<Label> {
    let mut counts: BTreeMap<Label, usize> = BTreeMap::new();
    operands.iter().flatten().for_each(|l| *counts.entry(*l).or_default() += 1);
    let once = counts.into_iter().filter(|(l, n)| matches!(l, Label::Letter(_)) && *n == 1).map(|(l, _)| l);
    (0..widest).rev().map(Label::Ellipsis).chain(once).collect()
}

/// A tensor whose axes have names.
struct Named {
    data: Tensor,
    labels: Vec<Label>,
}

impl Named {
    /// Takes the diagonal of axes with the same label.
    fn diagonal(mut self) -> Result<Self, OpError> {
        while let Some((first, second)) = repeated(&self.labels) {
            let n = self.data.shape()[first];
            let mut order: Vec<usize> = (0..self.labels.len()).filter(|i| *i != first && *i != second).collect();
            order.splice(0..0, [first, second]);
            let moved = self.data.transpose(&order)?;
            let rest = moved.shape()[2..].to_vec();
            let flat = moved.reshape([&[n * self.data.shape()[second]], rest.as_slice()].concat())?;
            let on_diagonal = Tensor::vector((0..n as i64).map(|i| i * (n as i64 + 1)).collect::<Vec<_>>());
            self.data = flat.gather(&on_diagonal, 0)?;
            let mut labels = vec![self.labels[first]];
            labels.extend(order[2..].iter().map(|i| self.labels[*i]));
            self.labels = labels;
        }
        Ok(self)
    }

    /// Sums over labels that are not needed any more.
    fn reduce(self, needed: impl Fn(&Label) -> bool) -> Result<Self, OpError> {
        let gone: Vec<usize> = (0..self.labels.len()).filter(|i| !needed(&self.labels[*i])).collect();
        if gone.is_empty() {
            return Ok(self);
        }
        let labels = self.labels.iter().copied().filter(|l| needed(l)).collect();
        Ok(Named { data: self.data.sum(&gone, false)?, labels })
    }

    /// The axes in the order of `labels`, with size 1 for those that are missing.
    fn arranged(&self, labels: &[Label]) -> Result<Tensor, OpError> {
        let present: Vec<usize> = labels.iter().filter_map(|l| self.labels.iter().position(|m| m == l)).collect();
        let missing: Vec<usize> = (0..labels.len()).filter(|i| !self.labels.contains(&labels[*i])).collect();
        Ok(self.data.transpose(&present)?.unsqueeze(&missing)?)
    }

    fn size(&self, label: Label) -> usize {
        self.labels.iter().position(|l| *l == label).map_or(1, |i| self.data.shape()[i])
    }
}

fn repeated(labels: &[Label]) -> Option<(usize, usize)> {
    (0..labels.len()).find_map(|j| labels[..j].iter().position(|l| *l == labels[j]).map(|i| (i, j)))
}

/// The product of two operands, summed over the labels of both that are no longer `needed`: one batched matrix product.
fn contract(node: &Node, a: Named, b: Named, needed: impl Fn(&Label) -> bool) -> Result<Named, OpError> {
    let shared = |l: &Label| a.labels.contains(l) && b.labels.contains(l);
    let batch: Vec<Label> = a.labels.iter().copied().filter(|l| shared(l) && needed(l)).collect();
    let inner: Vec<Label> = a.labels.iter().copied().filter(|l| shared(l) && !needed(l)).collect();
    let rows: Vec<Label> = a.labels.iter().copied().filter(|l| !shared(l)).collect();
    let columns: Vec<Label> = b.labels.iter().copied().filter(|l| !shared(l)).collect();
    for l in batch.iter().chain(&inner) {
        let (x, y) = (a.size(*l), b.size(*l));
        if x != y && !(batch.contains(l) && (x == 1 || y == 1)) {
            return Err(node.error(format!("axis {l:?} has sizes {x} and {y}")).into());
        }
    }
    let count = |t: &Named, labels: &[Label]| labels.iter().map(|l| t.size(*l)).product::<usize>();
    let matrix = |t: &Named, order: [&[Label]; 3]| -> Result<Tensor, OpError> {
        let data = t.arranged(&order.concat())?;
        let mut shape: Vec<usize> = order[0].iter().map(|l| t.size(*l)).collect();
        shape.extend([count(t, order[1]), count(t, order[2])]);
        Ok(data.reshape(shape)?)
    };
    let product = matrix(&a, [&batch, &rows, &inner])?.matmul(&matrix(&b, [&batch, &inner, &columns])?)?;
    let mut shape: Vec<usize> = batch.iter().map(|l| a.size(*l).max(b.size(*l))).collect();
    shape.extend(rows.iter().map(|l| a.size(*l)).chain(columns.iter().map(|l| b.size(*l))));
    Ok(Named { data: product.reshape(shape)?, labels: [batch, rows, columns].concat() })
}

fn einsum(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let tensors: Vec<Tensor> = inputs.into_vec().into_iter().flatten().collect();
    let equation = parse(cx.node, &tensors.iter().map(Tensor::rank).collect::<Vec<_>>())?;
    let later = |from: usize, l: &Label| equation.output.contains(l) || equation.operands[from..].iter().any(|o| o.contains(l));
    let mut so_far: Option<Named> = None;
    for (i, (data, labels)) in tensors.into_iter().zip(&equation.operands).enumerate() {
        check_diagonal(cx.node, &data, labels)?;
        let next = Named { data, labels: labels.clone() }.diagonal()?;
        so_far = Some(match so_far {
            None => next,
            Some(a) => {
                let in_a = a.labels.clone();
                let next = next.reduce(|l| in_a.contains(l) || later(i + 1, l))?;
                let in_b = next.labels.clone();
                let a = a.reduce(|l| in_b.contains(l) || later(i + 1, l))?;
                contract(cx.node, a, next, |l| later(i + 1, l))?
            }
        });
    }
    let result = so_far.ok_or_else(|| cx.node.error("it has no inputs"))?.reduce(|l| equation.output.contains(l))?;
    one(result.arranged(&equation.output)?)
}

fn check_diagonal(node: &Node, data: &Tensor, labels: &[Label]) -> Result<(), OpError> {
    match repeated(labels) {
        Some((i, j)) if data.shape()[i] != data.shape()[j] => {
            Err(node.error(format!("axis {:?} has sizes {} and {}", labels[i], data.shape()[i], data.shape()[j])).into())
        }
        _ => Ok(()),
    }
}

fn infer(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let shapes: Option<Vec<&[Dim]>> = (0..cx.types.len()).map(|i| cx.shape(i)).collect();
    let Some(shapes) = shapes else { return like_first(cx, None) };
    let equation = parse(cx.node, &shapes.iter().map(|s| s.len()).collect::<Vec<_>>())?;
    let mut sizes: BTreeMap<Label, Dim> = BTreeMap::new();
    for (label, dim) in equation.operands.iter().zip(&shapes).flat_map(|(o, s)| o.iter().zip(s.iter())) {
        let joined = match sizes.get(label) {
            Some(before) => broadcast_dims(cx, std::slice::from_ref(before), std::slice::from_ref(dim))?.remove(0),
            None => dim.clone(),
        };
        sizes.insert(*label, joined);
    }
    let dims = equation.output.iter().map(|l| sizes.get(l).cloned().unwrap_or(Dim::Unknown)).collect::<Vec<_>>();
    like_first(cx, Some(if dims.len() == equation.output.len() { dims } else { unknown(equation.output.len()) }))
}

/// MACs: the product of the sizes of all labels.
fn macs(cx: &MacsCx) -> u64 {
    let Some(shapes) = cx.inputs.iter().cloned().collect::<Option<Vec<_>>>() else { return 0 };
    let Ok(equation) = parse(cx.node, &shapes.iter().map(Vec::len).collect::<Vec<_>>()) else { return 0 };
    let mut sizes: BTreeMap<Label, u64> = BTreeMap::new();
    for (label, dim) in equation.operands.iter().zip(&shapes).flat_map(|(o, s)| o.iter().zip(s)) {
        let size = sizes.entry(*label).or_insert(1);
        *size = (*size).max(*dim as u64);
    }
    sizes.values().fold(1, |n, size| n.saturating_mul(*size))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, floats, iota};
    use tensor::Tensor;

    fn run(equation: &str, inputs: &[Tensor]) -> Tensor {
        Case::new("Einsum", 12).string("equation", equation).run(inputs)
    }

    #[test]
    fn the_usual_equations() {
        let (a, b) = (iota(&[2, 3]), iota(&[3, 2]));
        assert_eq!(run("ij,jk->ik", &[a.clone(), b.clone()]), a.matmul(&b).unwrap());
        assert_eq!(run("ij,jk", &[a.clone(), b.clone()]), a.matmul(&b).unwrap());
        assert_eq!(run("ij->ji", std::slice::from_ref(&a)), a.transpose(&[1, 0]).unwrap());
        assert_eq!(run("ij->", std::slice::from_ref(&a)), Tensor::scalar(15f32));
        assert_eq!(run("ii->i", &[iota(&[3, 3])]), floats(&[0.0, 4.0, 8.0]));
        assert_eq!(run("i,j->ij", &[floats(&[1.0, 2.0]), floats(&[3.0, 4.0])]).as_slice::<f32>().unwrap(), [3.0, 4.0, 6.0, 8.0]);
        assert_eq!(run("...ij,...jk->...ik", &[iota(&[5, 2, 3]), b]).shape(), [5, 2, 2]);
        assert_eq!(run("bi,bi->b", &[a.clone(), a]), floats(&[5.0, 50.0]));
    }

    #[test]
    fn three_operands_and_errors() {
        let v = floats(&[1.0, 2.0, 3.0]);
        assert_eq!(run("i,ij,j->", &[v.clone(), iota(&[3, 3]), v.clone()]), Tensor::scalar(192f32));
        let bad = |equation: &str, inputs: &[Tensor]| Case::new("Einsum", 12).string("equation", equation).run_all(inputs).is_err();
        assert!(
            bad("ij->i", std::slice::from_ref(&v))
                && bad("i->j", std::slice::from_ref(&v))
                && bad("i,i->i", &[v.clone(), floats(&[1.0, 2.0])])
                && bad("i!", &[v])
        );
    }
}
