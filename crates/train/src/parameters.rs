//! Trained parameters: named, and found by the role of the input that they feed.
use crate::{Overrides, TrainError};
use graph::{Model, ValueId};
use ops::{Role, Roles};
use std::collections::BTreeMap;
use tensor::{DType, Tensor};

/// The part of a value that is a parameter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The fp32 master of a constant.
    Master,
    /// A parameter of its encoding (`scale`, ...).
    Encoding(String),
}

/// Address of a trainable tensor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParameterId {
    /// The value that it belongs to.
    pub value: ValueId,
    /// The value's part: the master weight, or a parameter of its encoding.
    pub part: Part,
}

/// A trainable tensor.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Address of the parameter in model and checkpoint.
    pub id: ParameterId,
    /// Its name: the value's, with `/scale` and the like behind it for a part of the encoding.
    pub name: String,
    /// Role of the input that it feeds: weight, bias, ...
    pub role: Role,
}

impl Parameter {
    /// True if weight decay applies: to weights, not to biases, norms and scales.
    pub fn decays(&self) -> bool {
        self.role == Role::Weight && self.id.part == Part::Master
    }
}

/// All trainable parameters of the model, in the order of value ids.
///
/// A constant is trained if the operator it feeds gives that input the role of a weight, bias or norm parameter and it is f32. A
/// value that feeds several inputs takes the first role that is trained. `freeze` are patterns (`*` stands for any characters) of
/// names that are not trained.
///
/// # Errors
/// [`TrainError::Setting`] for a pattern that matches nothing: it is most likely misspelt.
pub fn trainable(model: &Model, freeze: &[String], learn_scales: bool) -> Result<Vec<Parameter>, TrainError> {
    let mut roles: BTreeMap<ValueId, Role> = BTreeMap::new();
    collect(model, &mut roles);
    let mut list = vec![];
    for (id, role) in roles {
        let value = &model.values[id];
        list.push(Parameter { id: ParameterId { value: id, part: Part::Master }, name: value.name.clone(), role });
    }
    if learn_scales {
        for (id, annotation) in model.annotations.iter() {
            let Some(encoding) = &annotation.encoding else { continue };
            for part in encodings::trainable(encoding) {
                let name = format!("{}/{part}", model.values[id].name);
                list.push(Parameter { id: ParameterId { value: id, part: Part::Encoding(part.to_string()) }, name, role: Role::Constant });
            }
        }
    }
    for pattern in freeze {
        let before = list.len();
        list.retain(|p| !graph::matches(pattern, &p.name));
        if list.len() == before {
            return Err(TrainError::Setting { setting: "freeze".into(), what: format!("'{pattern}' matches no trainable parameter") });
        }
    }
    list.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(list)
}

fn collect(model: &Model, roles: &mut BTreeMap<ValueId, Role>) {
    let of = Roles::of(model);
    model.graph.visit(&mut |node| {
        for (i, v) in node.inputs.iter().enumerate() {
            let Some(v) = v else { continue };
            let role = of.role(node, i);
            let trains = matches!(role, Role::Weight | Role::Bias | Role::NormScale | Role::NormBias);
            let is_f32 = model.values[*v].constant.as_ref().is_some_and(|c| c.tensor.dtype() == DType::F32);
            if trains && is_f32 {
                roles.entry(*v).or_insert(role);
            }
        }
    });
}

/// Reads a parameter from the model.
///
/// # Errors
/// [`TrainError::Value`] if the model has no such parameter.
pub fn get(model: &Model, id: &ParameterId) -> Result<Tensor, TrainError> {
    let missing = || TrainError::Value { value: model.values[id.value].name.clone(), what: format!("has no parameter {:?}", id.part) };
    match &id.part {
        Part::Master => model.values.tensor(id.value).cloned().ok_or_else(missing),
        Part::Encoding(name) => model.annotations.encoding(id.value).and_then(|e| e.parameters.get(name)).cloned().ok_or_else(missing),
    }
}

/// A parameter of an encoding after an update, projected onto its valid range; other parameters unchanged.
///
/// # Errors
/// [`TrainError::Value`] for an encoding that is not known.
pub(crate) fn projected(model: &Model, p: &Parameter, before: &Tensor, after: Tensor) -> Result<Tensor, TrainError> {
    match (&p.id.part, model.annotations.encoding(p.id.value)) {
        (Part::Encoding(name), Some(encoding)) => {
            encodings::project(encoding, name, before, after).map_err(|e| TrainError::Value { value: p.name.clone(), what: e.to_string() })
        }
        _ => Ok(after),
    }
}

/// The parameters as leaves of the record: the replacements of a run, and the leaves in order.
pub(crate) fn track(model: &Model, parameters: &[Parameter]) -> Result<(Overrides, Vec<Tensor>), TrainError> {
    let mut overrides = Overrides::default();
    let mut leaves = Vec::with_capacity(parameters.len());
    for p in parameters {
        let wrong = |e: tensor::TensorError| TrainError::Value { value: p.name.clone(), what: e.to_string() };
        let leaf = get(model, &p.id)?.tracked().map_err(wrong)?;
        leaves.push(leaf.clone());
        match &p.id.part {
            Part::Master => overrides.constants.insert(p.id.value, leaf),
            Part::Encoding(name) => overrides.encodings.insert((p.id.value, name.clone()), leaf),
        };
    }
    Ok((overrides, leaves))
}

/// Takes a parameter out of the model for writing (an empty tensor stays behind until [`put`]).
pub(crate) fn put(model: &mut Model, id: &ParameterId, tensor: Tensor) {
    match &id.part {
        Part::Master => {
            model.values.set_tensor(id.value, tensor);
        }
        Part::Encoding(name) => {
            if let Some(encoding) = &mut model.annotations.entry(id.value).encoding {
                encoding.parameters.insert(name.clone(), tensor);
            }
        }
    }
}
