//! Our own interpreter as a runtime: always available, literal arithmetic, the reference for other runtimes.
use super::{Runtime, RuntimeEntry, Session, SessionOptions, Slot, Source, check_inputs};
use crate::{DeployError, Result};
use graph::{Model, ValueId, ValueType};
use ops::Sums;
use std::collections::BTreeMap;
use tensor::Tensor;
use train::{Executor, Mode};

/// The runtime's name.
pub(super) const NAME: &str = "reference";

pub(super) const ENTRY: RuntimeEntry =
    RuntimeEntry { name: NAME, summary: "The built-in interpreter: literal arithmetic, always there", open: || Ok(Box::new(Reference)) };

/// The reference interpreter. It has one arithmetic, the literal one, and uses the process's own threads: both session
/// options are without effect.
pub struct Reference;

impl Runtime for Reference {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_string()
    }

    fn load(&self, source: Source, _options: SessionOptions) -> Result<Box<dyn Session>> {
        let model = match source {
            Source::Bytes(bytes) => onnx::from_bytes(bytes, None),
            Source::File(path) => onnx::load(path),
        };
        Reference::summing(model.map_err(|e| refused(e.to_string()))?, Sums::Exact)
    }
}

impl Reference {
    /// A session for a model, with operators on integers that sum as a processor does.
    pub(crate) fn summing(model: Model, sums: Sums) -> Result<Box<dyn Session>> {
        let slots = |ids: &[ValueId]| ids.iter().map(|v| slot(&model, *v)).collect::<Vec<_>>();
        let (inputs, outputs) = (slots(&model.free_inputs()), slots(&model.graph.outputs));
        let executor = Executor::owned(model).map_err(|e| refused(e.to_string()))?.summing(sums);
        Ok(Box::new(Loaded { executor, inputs, outputs }))
    }
}

fn refused(what: String) -> DeployError {
    DeployError::Runtime { runtime: NAME, step: "cannot load the model", what }
}

fn slot(model: &Model, id: ValueId) -> Slot {
    let value = &model.values[id];
    let dtype = if matches!(value.ty, ValueType::Other(_)) { None } else { value.dtype() };
    let shape = value.shape().map(|dims| dims.iter().map(graph::Dim::known).collect());
    Slot { name: value.name.clone(), dtype, shape }
}

struct Loaded {
    executor: Executor<'static>,
    inputs: Vec<Slot>,
    outputs: Vec<Slot>,
}

impl Session for Loaded {
    fn inputs(&self) -> &[Slot] {
        &self.inputs
    }

    fn outputs(&self) -> &[Slot] {
        &self.outputs
    }

    fn run(&mut self, inputs: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        check_inputs(&self.inputs, inputs)?;
        Ok(self.executor.run(inputs, Mode::FLOAT)?)
    }
}
