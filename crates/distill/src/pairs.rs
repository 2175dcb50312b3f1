//! Which features of student and teacher are compared, and how they are brought to one size.
use crate::Models;
use graph::{Dim, Model, ValueId, ValueType};
use ops::{Role, Roles};
use std::collections::{BTreeMap, HashMap, HashSet};
use tensor::{PoolOptions, Tensor};
use train::{TrainError, loss_error};

type Types = HashMap<ValueId, ValueType>;

/// A feature `[n, channels, ...space]` of one of the models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Feature {
    pub(crate) value: ValueId,
    pub(crate) name: String,
    /// Sizes behind the batch axis, as far as they are known before the model runs.
    shape: Option<Vec<Option<usize>>>,
}

impl Feature {
    fn new(model: &Model, types: &Types, value: ValueId) -> Self {
        let shape = match types.get(&value) {
            Some(ValueType::Tensor { shape: Some(dims), .. }) if dims.len() > 1 => Some(dims[1..].iter().map(Dim::known).collect()),
            _ => None,
        };
        Feature { value, name: model.values[value].name.clone(), shape }
    }

    /// Its channels, if they are known.
    pub(crate) fn channels(&self) -> Option<usize> {
        *self.shape.as_ref()?.first()?
    }

    /// Its axes after the channels, if all are known.
    fn space(&self) -> Option<Vec<usize>> {
        self.shape.as_ref()?[1..].iter().copied().collect()
    }

    fn text(&self) -> String {
        let dim = |d: &Option<usize>| d.map_or("?".into(), |d| d.to_string());
        let shape = self.shape.as_ref().map(|s| s.iter().map(dim).collect::<Vec<_>>().join("x"));
        shape.map_or_else(|| format!("'{}'", self.name), |s| format!("'{}' ({s})", self.name))
    }
}

/// A feature of the student and the one of the teacher that it is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) student: Feature,
    pub(crate) teacher: Feature,
}

/// The pairs that a recipe names, or else the chosen ones: of each size that feature maps of both models have, the last one of
/// each model. The sentence says which pairs were chosen.
///
/// # Errors
/// [`TrainError::Setting`] for a name that is no value that the model computes, for sizes that cannot be compared, and where nothing is
/// named and nothing can be chosen.
pub(crate) fn pairs(models: &Models, named: &[(String, String)], technique: &str) -> Result<(Vec<Pair>, String), TrainError> {
    let student = |v| Feature::new(models.student, models.student_types(), v);
    let teacher = |v| Feature::new(models.teacher, models.teacher_types(), v);
    let list: Vec<Pair> = if named.is_empty() {
        chosen(models, technique)?.into_iter().map(|(s, t)| Pair { student: student(s), teacher: teacher(t) }).collect()
    } else {
        let pair = |(s, t): &(String, String)| {
            let (s, t) = (find(models.student, s, "student", technique)?, find(models.teacher, t, "teacher", technique)?);
            Ok(Pair { student: student(s), teacher: teacher(t) })
        };
        named.iter().map(pair).collect::<Result<_, TrainError>>()?
    };
    let mut texts = vec![];
    for Pair { student, teacher } in &list {
        let mut text = format!("student {} with teacher {}", student.text(), teacher.text());
        if let (Some(a), Some(b)) = (student.space(), teacher.space()) {
            let common = common_size(&a, &b).ok_or_else(|| uneven(technique, &student.text(), &teacher.text()))?;
            if a != b {
                let larger = if a == common { "teacher's" } else { "student's" };
                text += &format!(", the {larger} averaged down to {}", sizes(&common));
            }
        }
        texts.push(text);
    }
    Ok((list, format!("{technique} compares {}", texts.join("; "))))
}

fn refuse(technique: &str, what: String) -> TrainError {
    TrainError::Setting { setting: format!("{technique}.pairs"), what }
}

fn uneven(technique: &str, student: &str, teacher: &str) -> TrainError {
    let what = format!(
        "student {student} and teacher {teacher} have sizes that cannot be compared: along each axis the larger must be a multiple of the \
         smaller, and all of the larger ones on one side; name other pairs"
    );
    refuse(technique, what)
}

fn sizes(space: &[usize]) -> String {
    space.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

/// The computed value of this name.
fn find(model: &Model, name: &str, whose: &str, technique: &str) -> Result<ValueId, TrainError> {
    let computed: Vec<(&str, ValueId)> =
        model.graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten()).map(|v| (model.values[*v].name.as_str(), *v)).collect();
    if let Some((_, value)) = computed.iter().find(|(known, _)| *known == name) {
        return Ok(*value);
    }
    let meant = technique::did_you_mean(name, computed.iter().map(|(known, _)| *known));
    let hint = meant.map_or("espalier inspect lists a model's values".to_string(), |k| format!("did you mean '{k}'?"));
    Err(refuse(technique, format!("'{name}' is no value that the {whose} computes; {hint}")))
}

/// Of each size that features of both models have, the last value of that size in each, from the largest size to the smallest.
fn chosen(models: &Models, technique: &str) -> Result<Vec<(ValueId, ValueId)>, TrainError> {
    let student = last_of_each_size(models.student, models.student_types());
    let teacher = last_of_each_size(models.teacher, models.teacher_types());
    let both = student.iter().filter_map(|(size, s)| Some((*s, *teacher.get(size)?)));
    let list: Vec<_> = both.rev().collect();
    if list.is_empty() {
        let text = |found: &BTreeMap<Vec<usize>, ValueId>| match found.len() {
            0 => "none of known size".to_string(),
            _ => found.keys().rev().map(|size| sizes(size)).collect::<Vec<_>>().join(", "),
        };
        let what = format!(
            "student and teacher have no feature maps of equal size (student: {}; teacher: {}): name what is compared, as \
             pairs = [[\"VALUE OF THE STUDENT\", \"VALUE OF THE TEACHER\"]]",
            text(&student),
            text(&teacher)
        );
        return Err(refuse(technique, what));
    }
    Ok(list)
}

/// The last feature map of each size that has more than one element per channel and is no output: the features before the network
/// changes the size. A feature map is the output of a convolution, or of a node that keeps its number of channels or its size.
fn last_of_each_size(model: &Model, types: &Types) -> BTreeMap<Vec<usize>, ValueId> {
    let shape_of = |v: ValueId| match types.get(&v) {
        Some(ValueType::Tensor { shape: Some(dims), dtype }) if dtype.is_float() && dims.len() > 2 => {
            dims[1..].iter().map(Dim::known).collect::<Option<Vec<usize>>>()
        }
        _ => None,
    };
    let rank = |v: ValueId| match types.get(&v) {
        Some(ValueType::Tensor { shape: Some(dims), .. }) => Some(dims.len()),
        _ => None,
    };
    let roles = Roles::of(model);
    let (mut maps, mut last) = (HashSet::new(), BTreeMap::new());
    for node in &model.graph.nodes {
        let Some((output, shape)) = node.output(0).and_then(|v| Some((v, shape_of(v)?))) else { continue };
        let inputs = || node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?)));
        let convolves = inputs().any(|(i, v)| roles.role(node, i) == Role::Weight && rank(v) == Some(shape.len() + 1));
        let keeps = |v: ValueId| {
            let Some(from) = shape_of(v).filter(|from| maps.contains(&v) && from.len() == shape.len()) else { return false };
            from[1..] == shape[1..] || from[0] == shape[0]
        };
        if convolves || inputs().any(|(_, v)| keeps(v)) {
            maps.insert(output);
            let space = shape[1..].to_vec();
            if space.iter().product::<usize>() > 1 && !model.graph.outputs.contains(&output) {
                last.insert(space, output);
            }
        }
    }
    last
}

/// The size to which the larger of two is averaged: the smaller one, if it divides the other along each axis.
fn common_size(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let fits = |large: &[usize], small: &[usize]| large.len() == small.len() && large.iter().zip(small).all(|(l, s)| *s > 0 && l % s == 0);
    if fits(a, b) {
        return Some(b.to_vec());
    }
    fits(b, a).then(|| a.to_vec())
}

/// Two features `[n, channels, ...space]` with equal space: the larger is averaged over windows. Of equal element type: the
/// teacher's becomes the student's.
///
/// # Errors
/// [`TrainError::Setting`] for sizes that cannot be compared.
pub(crate) fn matched(pair: &Pair, student: &Tensor, teacher: &Tensor, technique: &str) -> Result<(Tensor, Tensor), TrainError> {
    let told = |f: &Feature, t: &Tensor| format!("'{}' ({})", f.name, sizes(t.shape()));
    let wrong = || uneven(technique, &told(&pair.student, student), &told(&pair.teacher, teacher));
    let (Some(a), Some(b)) = (student.shape().get(2..), teacher.shape().get(2..)) else { return Err(wrong()) };
    let common = common_size(a, b).ok_or_else(wrong)?;
    let teacher = if teacher.dtype() == student.dtype() { teacher.clone() } else { teacher.cast(student.dtype()).map_err(loss_error)? };
    Ok((averaged(student, &common)?, averaged(&teacher, &common)?))
}

/// `[n, channels, ...space]` averaged over equal windows to a size that divides its own.
fn averaged(t: &Tensor, size: &[usize]) -> Result<Tensor, TrainError> {
    if t.shape()[2..] == *size {
        return Ok(t.clone());
    }
    let kernel: Vec<usize> = t.shape()[2..].iter().zip(size).map(|(from, to)| from / to).collect();
    let axes = size.len();
    let options = PoolOptions {
        strides: kernel.clone(),
        kernel,
        pads: vec![(0, 0); axes],
        dilations: vec![1; axes],
        ceil_mode: false,
        count_include_pad: false,
    };
    t.average_pool(&options).map_err(loss_error)
}

/// The sum of scalars.
///
/// # Errors
/// [`TrainError::Value`] for none.
pub(crate) fn sum(losses: Vec<Tensor>) -> Result<Tensor, TrainError> {
    let mut losses = losses.into_iter();
    let first = losses.next().ok_or_else(|| TrainError::Value { value: "loss".into(), what: "compares nothing".into() })?;
    losses.try_fold(first, |sum, loss| sum.add(&loss).map_err(loss_error))
}

/// The mean of scalars.
///
/// # Errors
/// As [`sum`].
pub(crate) fn mean(losses: Vec<Tensor>) -> Result<Tensor, TrainError> {
    match losses.len() {
        0 | 1 => sum(losses),
        n => sum(losses)?.mul_scalar(1.0 / n as f64).map_err(loss_error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{identity, three_sizes};

    #[test]
    fn the_last_feature_of_each_size_is_chosen_and_named() {
        let (student, teacher) = (three_sizes(4), three_sizes(6));
        let (list, text) = pairs(&Models::new(&student, &teacher, 0), &[], "feature").unwrap();
        let names: Vec<(&str, &str)> = list.iter().map(|p| (p.student.name.as_str(), p.teacher.name.as_str())).collect();
        assert_eq!(names, [("relu0", "relu0"), ("relu1", "relu1"), ("relu2", "relu2")]);
        assert_eq!((list[1].student.channels(), list[1].teacher.channels()), (Some(8), Some(12)));
        assert!(
            text.starts_with("feature compares student 'relu0' (4x8x8) with teacher 'relu0' (6x8x8); student 'relu1' (8x4x4)"),
            "{text}"
        );
    }

    #[test]
    fn named_pairs_are_found_and_wrong_ones_refused_with_what_helps() {
        let m = three_sizes(4);
        let of = |s: &str, t: &str| pairs(&Models::new(&m, &m, 0), &[(s.to_string(), t.to_string())], "feature");
        let (list, text) = of("relu1", "relu0").unwrap();
        assert_eq!((list[0].student.name.as_str(), list[0].teacher.name.as_str()), ("relu1", "relu0"));
        assert!(text.ends_with("the teacher's averaged down to 4x4"), "{text}");
        let told = |r: Result<(Vec<Pair>, String), TrainError>| r.unwrap_err().to_string();
        assert!(told(of("relu1", "relu3")).contains("'relu3' is no value that the teacher computes; did you mean 'relu"));
        assert!(told(of("w1", "relu1")).contains("'w1' is no value that the student computes"));
        assert!(told(of("relu0", "flat")).contains("cannot be compared"));
        let flat = identity("x");
        let nothing = told(pairs(&Models::new(&flat, &m, 0), &[], "feature"));
        assert!(nothing.contains("student: none of known size; teacher: 8x8, 4x4, 2x2") && nothing.contains("pairs ="), "{nothing}");
    }

    #[test]
    fn sizes_that_divide_each_other_meet_at_the_smaller() {
        for (a, b, common) in [
            (&[8, 8][..], &[4, 4][..], Some(vec![4, 4])),
            (&[4, 8], &[4, 8], Some(vec![4, 8])),
            (&[2, 4], &[4, 4], Some(vec![2, 4])),
            (&[2, 8], &[4, 4], None),
            (&[6], &[4], None),
            (&[4], &[4, 4], None),
            (&[], &[], Some(vec![])),
        ] {
            assert_eq!(common_size(a, b), common, "{a:?} {b:?}");
        }
        let t = Tensor::new((0..16).map(|v| v as f32).collect(), [1, 1, 4, 4]).unwrap();
        assert_eq!(averaged(&t, &[2, 2]).unwrap().to_f32_vec().unwrap(), [2.5, 4.5, 10.5, 12.5]);
    }
}
