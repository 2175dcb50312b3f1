//! The teacher: a frozen model that is run on the student's batches.
use graph::{Model, ValueId};
use std::collections::HashMap;
use tensor::Tensor;
use train::{Batch, Executor, Feeding, InputRules, Mode, Named, Overrides, TrainError, loss_error};

/// A frozen model that is only run, neither trained nor changed.
pub struct Teacher<'m> {
    executor: Executor<'m>,
    feeding: Feeding,
    inputs: Vec<String>,
    mode: Mode,
}

impl<'m> Teacher<'m> {
    /// A teacher whose values `taps` are read. In `mode` [`Mode::FLOAT`] its annotations are ignored.
    ///
    /// # Errors
    /// As [`Executor::new`].
    pub fn new(model: &'m Model, taps: &[ValueId], mode: Mode) -> Result<Self, TrainError> {
        let inputs = model.free_inputs().iter().map(|v| model.values[*v].name.clone()).collect();
        let feeding = Feeding::of(model, &InputRules::new())?;
        Ok(Teacher { executor: Executor::with_taps(model, taps)?, feeding, inputs, mode })
    }

    /// The taps' values for a batch. A teacher and a student with one input each may use different names for it and different
    /// batch sizes: a teacher with a fixed batch runs several times, and its results are joined along axis 0.
    ///
    /// # Errors
    /// Whatever running the teacher reports.
    pub fn observe(&self, batch: &Batch) -> Result<HashMap<ValueId, Tensor>, TrainError> {
        let mut inputs: Named = batch.inputs.iter().map(|(name, t)| (name.clone(), t.detach())).collect();
        if let ([wanted], 1) = (self.inputs.as_slice(), inputs.len())
            && !inputs.contains_key(wanted)
            && let Some((_, only)) = inputs.pop_first()
        {
            inputs.insert(wanted.clone(), only);
        }
        let inputs = inputs.into_iter().filter(|(name, _)| self.inputs.contains(name)).collect();
        let runs = self.feeding.split(&Batch { inputs, targets: Named::new(), portion: batch.portion })?;
        let mut answers: Vec<HashMap<ValueId, Tensor>> = vec![];
        for run in &runs {
            let out = self.executor.run_with(&run.inputs, &Overrides::default(), self.mode, None)?;
            answers.push(run.counted_values(out.values)?);
        }
        let ids: Vec<ValueId> = answers.first().map(|a| a.keys().copied().collect()).unwrap_or_default();
        let joined = |id: ValueId| {
            let list: Vec<Tensor> = answers.iter().filter_map(|a| a.get(&id).cloned()).collect();
            let value = if let [one] = list.as_slice() { one.clone() } else { Tensor::concat(&list, 0).map_err(loss_error)? };
            Ok((id, value))
        };
        ids.into_iter().map(joined).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::{Dim, Node, Value, ValueType};
    use tensor::DType;

    /// `y = x` for two samples at a time.
    fn two_at_a_time() -> Model {
        let mut m = Model::new(17);
        let ty = ValueType::Tensor { dtype: DType::F32, shape: Some(vec![Dim::Known(2), Dim::Known(3)]) };
        let x = m.values.add(Value { name: "x".into(), ty, ..Value::default() });
        let to = m.values.add_constant("to", Tensor::vector(vec![2i64, 3]));
        let y = m.values.add_named("y");
        m.graph.inputs.push(x);
        m.graph.constants.push(to);
        m.graph.nodes.push(Node::new("Reshape", "hold", &[x, to], &[y]));
        m.graph.outputs.push(y);
        m
    }

    #[test]
    fn a_teacher_with_a_fixed_batch_answers_for_any_number_of_samples() {
        let m = two_at_a_time();
        let y = m.graph.outputs[0];
        let teacher = Teacher::new(&m, &[y], Mode::FLOAT).unwrap();
        for rows in [1usize, 2, 5] {
            let x = Tensor::new((0..3 * rows).map(|v| v as f32).collect(), [rows, 3]).unwrap();
            let batch = Batch { inputs: [("student's".to_string(), x.clone())].into(), ..Batch::default() };
            assert_eq!(teacher.observe(&batch).unwrap()[&y], x);
        }
    }
}
