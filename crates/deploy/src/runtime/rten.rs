//! rten, a runtime written in Rust: a second opinion that shares no code with ONNX Runtime. It holds 64-bit integers and
//! booleans as 32-bit integers, so those are converted on the way in and come out as int32.
use super::{Runtime, RuntimeEntry, Session, SessionOptions, Slot, Source, check_inputs};
use crate::{DeployError, Result};
use ::rten::{DataType, Dimension, Model, ModelOptions, NodeId, NodeInfo, RunOptions, ThreadPool, Value, ValueOrView, ValueType};
use rten_tensor::Layout;
use std::collections::BTreeMap;
use std::sync::Arc;
use tensor::{Buffer, DType, Tensor};

/// The runtime's name.
pub(super) const NAME: &str = "rten";

pub(super) const ENTRY: RuntimeEntry =
    RuntimeEntry { name: NAME, summary: "RTen, in builds with the feature of that name", open: || Ok(Box::new(Rten)) };

/// rten.
pub struct Rten;

impl Runtime for Rten {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        "0.27.0".into()
    }

    fn load(&self, source: Source, options: SessionOptions) -> Result<Box<dyn Session>> {
        let mut settings = ModelOptions::with_all_ops();
        settings.enable_optimization(options.optimize);
        let model = match source {
            Source::Bytes(bytes) => settings.load(bytes.to_vec()),
            Source::File(path) => settings.load_file(path),
        };
        let model = model.map_err(|e| DeployError::Runtime { runtime: NAME, step: "cannot load the model", what: e.to_string() })?;
        let (inputs, outputs) = (slots(&model, model.input_ids()), slots(&model, model.output_ids()));
        let pool = Arc::new(ThreadPool::with_num_threads(options.threads));
        Ok(Box::new(Loaded { model, pool, inputs, outputs }))
    }
}

fn slots(model: &Model, ids: &[NodeId]) -> Vec<Slot> {
    ids.iter().filter_map(|id| model.node_info(*id)).map(slot).collect()
}

fn slot(info: NodeInfo) -> Slot {
    let dtype = match info.dtype() {
        Some(ValueType::Tensor(DataType::Float)) => Some(DType::F32),
        Some(ValueType::Tensor(DataType::Int8)) => Some(DType::I8),
        Some(ValueType::Tensor(DataType::UInt8)) => Some(DType::U8),
        // int32 may stand for int64 or bool.
        _ => None,
    };
    let size = |d: Dimension| if let Dimension::Fixed(n) = d { Some(n) } else { None };
    Slot { name: info.name().unwrap_or_default().to_string(), dtype, shape: info.shape().map(|s| s.into_iter().map(size).collect()) }
}

struct Loaded {
    model: Model,
    pool: Arc<ThreadPool>,
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
        let failed = |what: String| DeployError::Runtime { runtime: NAME, step: "cannot run the model", what };
        let mut feeds: Vec<(NodeId, ValueOrView)> = vec![];
        for (name, tensor) in inputs {
            let value = to_rten(tensor).map_err(|what| DeployError::Input { input: name.clone(), what })?;
            feeds.push((self.model.node_id(name).map_err(|e| failed(e.to_string()))?, value.into()));
        }
        let mut options = RunOptions::default();
        options.thread_pool = Some(self.pool.clone());
        let values = self.model.run(feeds, self.model.output_ids(), Some(options)).map_err(|e| failed(e.to_string()))?;
        let named = self.outputs.iter().zip(values);
        named.map(|(slot, value)| Ok((slot.name.clone(), from_rten(value).map_err(failed)?))).collect()
    }
}

fn to_rten(tensor: &Tensor) -> std::result::Result<Value, String> {
    let shape = tensor.shape();
    let narrow = |v: &i64| i32::try_from(*v).map_err(|_| format!("{v} does not fit the 32 bits rten has for integers"));
    let value = match tensor.buffer() {
        Buffer::F32(v) => Value::from_shape(shape, v.to_vec()).map_err(|e| e.to_string()),
        Buffer::I32(v) => Value::from_shape(shape, v.to_vec()).map_err(|e| e.to_string()),
        Buffer::I64(v) => {
            let v = v.iter().map(narrow).collect::<std::result::Result<Vec<i32>, _>>()?;
            Value::from_shape(shape, v).map_err(|e| e.to_string())
        }
        Buffer::Bool(v) => Value::from_shape(shape, v.iter().map(|b| i32::from(*b)).collect::<Vec<i32>>()).map_err(|e| e.to_string()),
        Buffer::I8(v) if tensor.dtype() == DType::I8 => Value::from_shape(shape, v.to_vec()).map_err(|e| e.to_string()),
        Buffer::U8(v) if tensor.dtype() == DType::U8 => Value::from_shape(shape, v.to_vec()).map_err(|e| e.to_string()),
        _ => return Err(format!("element type {} cannot be fed to rten", tensor.dtype())),
    };
    value
}

fn from_rten(value: Value) -> std::result::Result<Tensor, String> {
    let shape = value.shape().to_vec();
    let tensor = match value {
        Value::FloatTensor(t) => Tensor::new(t.into_data(), shape),
        Value::Int32Tensor(t) => Tensor::new(t.into_data(), shape),
        Value::Int8Tensor(t) => Tensor::new(t.into_data(), shape),
        Value::UInt8Tensor(t) => Tensor::new(t.into_data(), shape),
        other => return Err(format!("an output is {:?}, not a tensor", other.dtype())),
    };
    tensor.map_err(|e| e.to_string())
}
