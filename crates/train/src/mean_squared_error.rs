//! Mean squared error on a graph's float outputs: the loss of a graph about which nothing more is known.
use crate::{Batch, Executor, Mode, Named, Objective, TrainError, loss_error, read};
use graph::{Model, ValueId};
use std::collections::{BTreeMap, HashMap};
use tensor::{Tensor, random};

/// The sum over the float outputs of the mean squared difference to a target of the output's name and shape.
#[derive(Clone, Debug)]
pub struct MeanSquaredError {
    /// Outputs with the names of their targets.
    outputs: Vec<(ValueId, String)>,
}

impl MeanSquaredError {
    /// On every output of the model that may be a tensor of floats.
    ///
    /// # Errors
    /// [`TrainError::Setting`] if there is none.
    pub fn of(model: &Model) -> Result<Self, TrainError> {
        let may_be_float = |v: &&ValueId| model.values[**v].dtype().is_none_or(|d| d.is_float());
        let outputs: Vec<_> = model.graph.outputs.iter().filter(may_be_float).map(|v| (*v, model.values[*v].name.clone())).collect();
        if outputs.is_empty() {
            return Err(TrainError::Setting { setting: "loss".into(), what: "the model has no float output".into() });
        }
        Ok(MeanSquaredError { outputs })
    }
}

impl Objective for MeanSquaredError {
    fn taps(&self) -> Vec<ValueId> {
        self.outputs.iter().map(|(v, _)| *v).collect()
    }

    fn loss(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
        let mut sum: Option<Tensor> = None;
        for (id, name) in &self.outputs {
            let output = read(values, *id)?;
            if !output.dtype().is_float() {
                continue;
            }
            let one = tensor::mse_loss(output, batch.target(name)?).map_err(loss_error)?;
            sum = Some(match sum {
                Some(sum) => sum.add(&one).map_err(loss_error)?,
                None => one,
            });
        }
        sum.ok_or_else(|| TrainError::Value { value: "loss".into(), what: "no output of the model holds floats".into() })
    }
}

/// Targets for [`MeanSquaredError`] without data: evenly distributed numbers from -1 to 1, in the shapes of the model's float
/// outputs for these inputs. Equal seeds give equal targets.
///
/// # Errors
/// Whatever running the model once reports.
pub fn random_targets(model: &Model, inputs: &Named, seed: u64) -> Result<BTreeMap<String, Tensor>, TrainError> {
    let outputs = Executor::new(model)?.run(inputs, Mode::FLOAT)?;
    let floats = outputs.into_iter().filter(|(_, t)| t.dtype().is_float());
    let target = |(i, (name, t)): (usize, (String, Tensor))| {
        let target = random::uniform(random::derive(seed, i as u64), t.shape(), -1.0, 1.0).map_err(loss_error)?;
        Ok((name, target.cast(t.dtype()).map_err(loss_error)?))
    };
    floats.enumerate().map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::{Node, Value, ValueType};
    use tensor::DType;

    #[test]
    fn the_loss_sums_over_the_float_outputs() {
        let mut m = Model::new(17);
        let ty = ValueType::Tensor { dtype: DType::F32, shape: None };
        let x = m.values.add(Value { name: "x".into(), ty, ..Value::default() });
        m.graph.inputs.push(x);
        for (op, name) in [("Neg", "a"), ("Abs", "b"), ("Shape", "s")] {
            let y = m.values.add_named(name);
            m.graph.nodes.push(Node::new(op, "", &[x], &[y]));
            m.graph.outputs.push(y);
        }
        let inputs = Named::from([("x".into(), Tensor::vector(vec![1f32, 2.0]))]);
        let targets = random_targets(&m, &inputs, 3).unwrap();
        assert_eq!(targets.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(targets, random_targets(&m, &inputs, 3).unwrap());
        let objective = MeanSquaredError::of(&m).unwrap();
        let executor = Executor::with_taps(&m, &objective.taps()).unwrap();
        let out = executor.run_with(&inputs, &crate::Overrides::default(), Mode::FLOAT, None).unwrap();
        let zeros = Tensor::vector(vec![0f32, 0.0]);
        let batch = Batch { inputs, targets: BTreeMap::from([("a".into(), zeros.clone()), ("b".into(), zeros)]), ..Batch::default() };
        let loss = objective.loss(&out.values, &batch).unwrap();
        assert_eq!(loss.to_f32_vec().unwrap(), [5.0]);
    }
}
