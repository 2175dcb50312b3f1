//! Values of an early step, to which a training goes back.
use graph::Model;
use std::collections::BTreeMap;
use tensor::{DType, Tensor};
use train::parameters::{Parameter, Part, get};

/// Floats of a model by name: parameters, learned scales of encodings among them, and running statistics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Early(pub(crate) BTreeMap<String, Tensor>);

impl Early {
    /// The present values, with those of encodings that are among the parameters.
    pub(crate) fn of(model: &Model, parameters: &[Parameter]) -> Early {
        let floats = model.values.iter().filter_map(|(id, value)| Some((value.name.clone(), model.values.tensor(id)?.clone())));
        let learned = parameters.iter().filter(|p| p.id.part != Part::Master);
        let learned = learned.filter_map(|p| Some((p.name.clone(), get(model, &p.id).ok()?)));
        Early(floats.chain(learned).filter(|(_, t)| t.dtype() == DType::F32).collect())
    }

    /// Puts the values back. What has another shape by now stays.
    pub(crate) fn put(&self, model: &mut Model, parameters: &[Parameter]) {
        for p in parameters {
            let (Part::Encoding(part), Some(early)) = (&p.id.part, self.0.get(&p.name)) else { continue };
            let Some(encoding) = &mut model.annotations.entry(p.id.value).encoding else { continue };
            encoding.parameters.get_mut(part).filter(|t| t.shape() == early.shape()).into_iter().for_each(|t| *t = early.clone());
        }
        for (name, tensor) in &self.0 {
            let Some(id) = model.find(name) else { continue };
            if model.values.tensor(id).is_some_and(|t| t.shape() == tensor.shape() && t.dtype() == tensor.dtype()) {
                model.values.set_tensor(id, tensor.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::{Encoding, Node};
    use train::parameters::trainable;

    #[test]
    fn learned_scales_go_back_with_their_weights() {
        let mut m = Model::new(17);
        let [x, y] = ["x", "y"].map(|n| m.values.add_named(n));
        let w = m.values.add_constant("w", Tensor::new(vec![1.0f32, -0.5], [2, 1]).unwrap());
        m.graph.inputs.push(x);
        m.graph.constants.push(w);
        m.graph.nodes.push(Node::new("MatMul", "fc", &[x, w], &[y]));
        m.graph.outputs.push(y);
        let settings = encodings::affine::AffineSettings::weight(8, None);
        let weight = m.values.tensor(w).unwrap().clone();
        let of =
            |w: &Tensor| -> Encoding { encodings::affine::fit_weight(w, &settings, encodings::affine::Precision::WEIGHT, 0.0).unwrap() };
        m.annotations.entry(w).encoding = Some(of(&weight));
        let parameters = trainable(&m, &[], true).unwrap();
        assert!(parameters.iter().any(|p| p.id.part != Part::Master), "{parameters:?}");
        let (before, early) = (m.clone(), Early::of(&m, &parameters));
        let twice = weight.mul_scalar(2.0).unwrap();
        m.annotations.entry(w).encoding = Some(of(&twice));
        m.values.set_tensor(w, twice);
        assert_ne!(m, before);
        early.put(&mut m, &parameters);
        assert_eq!(m, before);
    }
}
