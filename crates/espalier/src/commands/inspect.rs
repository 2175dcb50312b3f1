//! `inspect`: the contents of a model.
use super::inputs::{takes, takes_text, type_text};
use super::observe::{Shapes, observe};
use crate::Result;
use deploy::measure::StoredValues;
use graph::{Model, ValueId};
use report::text;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use tensor::Tensor;

/// An input or output.
#[derive(Clone, Debug, Serialize)]
pub struct Port {
    /// Name of the input or output.
    pub name: String,
    /// Its type: `float[N, 3, 32, 32]`.
    pub ty: String,
    /// For an input: how samples are laid out in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub takes: Option<String>,
}

/// A node with weights or MACs.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// Name of the node.
    pub node: String,
    /// Operator type of the node, such as `Conv`.
    pub op_type: String,
    /// Shape of its first output in the counted run.
    pub output: Option<Vec<usize>>,
    /// Elements of its weights and biases, also where a DequantizeLinear stands between.
    pub parameters: u64,
    /// Elements that are not zero, masks applied.
    pub nonzeros: u64,
    /// Bytes of its weights and biases in this file.
    pub parameter_bytes: u64,
    /// Multiply-accumulate operations.
    pub macs: Option<u64>,
    /// How its weight is stored, if it is annotated or behind a DequantizeLinear: `int8 per channel`.
    pub encoding: Option<String>,
    /// True if a mask holds some of its weights at zero.
    pub masked: bool,
}

/// The contents of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Path of the model's file.
    pub file: String,
    /// Size in bytes, data files included.
    pub file_bytes: u64,
    /// Bytes of the data files beside it (external data).
    pub external_bytes: u64,
    /// Version of the format.
    pub ir_version: i64,
    /// Operator sets by domain.
    pub opsets: BTreeMap<String, i64>,
    /// Inputs that must be fed.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
    /// Nodes by operator, subgraphs included.
    pub operators: BTreeMap<String, usize>,
    /// Unknown operators.
    pub unknown_operators: Vec<String>,
    /// Elements of weights and biases.
    pub parameters: u64,
    /// Elements that are not zero, masks applied.
    pub nonzeros: u64,
    /// Those of all parameters that no operator reads directly: behind nodes that compute with constants alone, or stored as one
    /// with equal others. A run makes them visible first; layers do not list them.
    pub hidden_parameters: u64,
    /// Multiply-accumulate operations for inputs of the declared shapes (unknown dimensions as 1).
    pub macs: Option<u64>,
    /// Why `macs` is absent, or what it does not count.
    pub macs_note: Option<String>,
    /// Annotated values.
    pub annotations: usize,
    /// Annotated values with a mask.
    pub masks: usize,
    /// Annotated values with an encoding, by how it stores them.
    pub encodings: BTreeMap<String, usize>,
    /// Layer by layer.
    pub layers: Vec<Layer>,
    /// The model's metadata.
    pub metadata: BTreeMap<String, String>,
}

/// Reads a model and counts its contents.
///
/// # Errors
/// If the file cannot be read.
pub fn inspect(path: &Path, shapes: &BTreeMap<String, Vec<usize>>) -> Result<Inspection> {
    let model = onnx::load(path)?;
    let alone = std::fs::metadata(path).map_or(0, |m| m.len());
    let file_bytes = onnx::bytes_on_disk(path, &model).unwrap_or(alone);
    let (seen, macs_note) = match observe(&model, shapes) {
        Ok((seen, note)) => (Some(seen), note),
        Err(e) => {
            let input = model.free_inputs().first().map_or(String::new(), |v| model.values[*v].name.clone());
            (None, Some(format!("open sizes were taken as 1, and {e}; give the input's shape: --shape {input}=1,...")))
        }
    };
    let mut operators: BTreeMap<String, usize> = BTreeMap::new();
    let mut unknown = vec![];
    model.graph.visit(&mut |n| {
        let name = if n.is_onnx() { n.op_type.clone() } else { format!("{}.{}", n.domain, n.op_type) };
        if ops::find(&n.domain, &n.op_type).is_none() && model.functions.iter().all(|f| f.name != n.op_type) {
            unknown.push(name.clone());
        }
        *operators.entry(name).or_default() += 1;
    });
    unknown.sort();
    unknown.dedup();
    let layers = layers(&model, seen.as_ref());
    let mut encodings: BTreeMap<String, usize> = BTreeMap::new();
    for encoding in model.annotations.iter().filter_map(|(_, a)| a.encoding.as_ref()) {
        *encodings.entry(encodings::describe(encoding)).or_default() += 1;
    }
    // Declared shapes may be of any size.
    let sum = |f: fn(&Layer) -> u64| layers.iter().map(f).fold(0, u64::saturating_add);
    let [hidden, hidden_nonzeros] = hidden_parameters(&model);
    let takes: BTreeMap<String, String> = takes(&model).into_iter().collect();
    let port = |v: &ValueId| {
        let name = model.values[*v].name.clone();
        Port { ty: type_text(&model.values[*v].ty), takes: takes.get(&name).cloned(), name }
    };
    Ok(Inspection {
        file: path.display().to_string(),
        file_bytes,
        external_bytes: file_bytes - alone,
        ir_version: model.ir_version,
        opsets: model.opsets.iter().map(|o| (if o.domain.is_empty() { "ai.onnx".into() } else { o.domain.clone() }, o.version)).collect(),
        inputs: model.free_inputs().iter().map(port).collect(),
        outputs: model.graph.outputs.iter().map(|v| Port { takes: None, ..port(v) }).collect(),
        operators,
        unknown_operators: unknown,
        parameters: sum(|l| l.parameters) + hidden,
        nonzeros: sum(|l| l.nonzeros) + hidden_nonzeros,
        hidden_parameters: hidden,
        macs: seen.is_some().then(|| sum(|l| l.macs.unwrap_or(0))),
        macs_note,
        annotations: model.annotations.len(),
        masks: model.annotations.iter().filter(|(_, a)| a.mask.is_some()).count(),
        encodings,
        layers: layers.into_iter().filter(|l| l.parameters > 0 || l.macs.unwrap_or(0) > 0).collect(),
        metadata: model.metadata.iter().cloned().collect(),
    })
}

/// Parameters that a run makes visible before it begins, and how many of their elements are not zero.
fn hidden_parameters(model: &Model) -> [u64; 2] {
    let mut prepared = model.clone();
    let counts = (deploy::measure::parameters(model), train::prepare(&mut prepared).map(|_| deploy::measure::parameters(&prepared)));
    // A model that cannot be prepared is reported by the run.
    let (Ok(before), Ok(Ok(after))) = counts else { return [0, 0] };
    [after.total.saturating_sub(before.total), after.nonzero.saturating_sub(before.nonzero)]
}

fn layers(model: &Model, seen: Option<&Shapes>) -> Vec<Layer> {
    let mut stored = StoredValues::new(model);
    let roles = ops::Roles::of(model);
    let mut out = vec![];
    model.graph.visit(&mut |node| {
        let Some(op) = ops::find(&node.domain, &node.op_type) else { return };
        let (mut parameters, mut nonzeros, mut parameter_bytes, mut encoding, mut masked) = (0, 0, 0, None, false);
        for (i, v) in node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))) {
            use ops::Role::{Bias, NormBias, NormScale, Weight};
            if !matches!(roles.role(node, i), Weight | Bias | NormScale | NormBias) {
                continue;
            }
            encoding = encoding.or_else(|| model.annotations.encoding(v).map(encodings::describe));
            let mask = model.annotations.mask(v);
            masked |= mask.is_some();
            // A shared weight counts once; strings, which cannot be counted, are no weights.
            if let Ok(Some(count)) = stored.first_count(v) {
                parameters += count.elements;
                nonzeros += count.elements - count.zeros;
                nonzeros -= mask.map_or(0, |mask| hidden(model.values.tensor(v), mask));
                parameter_bytes += count.bytes;
                encoding = encoding.or(count.stored_as);
            }
        }
        let shape = |v: &Option<ValueId>| {
            let v = (*v)?;
            seen.and_then(|s| s.get(&v).cloned()).or_else(|| model.values.tensor(v).map(|t| t.shape().to_vec()))
        };
        let (inputs, outputs): (Vec<_>, Vec<_>) = (node.inputs.iter().map(shape).collect(), node.outputs.iter().map(shape).collect());
        let output = outputs.first().cloned().flatten();
        let macs = output.is_some().then(|| op.macs(&ops::MacsCx { node, inputs, outputs }));
        let (node, op_type) = (node.label(&model.values), node.op_type.clone());
        out.push(Layer { node, op_type, output, parameters, nonzeros, parameter_bytes, macs, encoding, masked });
    });
    out
}

/// Elements that are not zero but masked.
fn hidden(weight: Option<&Tensor>, mask: &Tensor) -> u64 {
    let (Some(Ok(values)), Ok(mask)) = (weight.map(|w| w.to_f32_vec()), mask.as_slice::<bool>()) else { return 0 };
    values.iter().zip(mask).filter(|(v, live)| **v != 0.0 && !**live).count() as u64
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = |list: &[Port]| list.iter().map(|p| text::line(&format!("{} {}", p.name, p.ty))).collect::<Vec<_>>().join(", ");
        let opsets = self.opsets.iter().map(|(d, v)| format!("{d} {v}")).collect::<Vec<_>>().join(", ");
        let beside = match self.external_bytes {
            0 => String::new(),
            n => format!(" ({} of them in data files beside it)", text::bytes(n)),
        };
        writeln!(f, "{}: {}{beside}, IR {}, opset {opsets}", self.file, text::bytes(self.file_bytes), self.ir_version)?;
        writeln!(f, "inputs:      {}", ports(&self.inputs))?;
        let told: Vec<(&str, &str)> = self.inputs.iter().filter_map(|p| Some((p.name.as_str(), p.takes.as_deref()?))).collect();
        write!(f, "{}", takes_text(&told))?;
        writeln!(f, "outputs:     {}", ports(&self.outputs))?;
        let operators = self.operators.iter().map(|(o, n)| text::line(&format!("{o} {n}"))).collect::<Vec<_>>().join(", ");
        writeln!(f, "operators:   {operators}")?;
        if !self.unknown_operators.is_empty() {
            writeln!(f, "not known:   {}", text::line(&self.unknown_operators.join(", ")))?;
        }
        let hidden = match self.hidden_parameters {
            0 => String::new(),
            n => format!("; {n} of them are behind nodes on constants or stored as one with others: a run makes them visible first"),
        };
        writeln!(f, "parameters:  {}, {} not zero{hidden}", self.parameters, self.nonzeros)?;
        match (&self.macs, &self.macs_note) {
            (Some(macs), None) => writeln!(f, "MACs:        {macs}")?,
            (Some(macs), Some(note)) => writeln!(f, "MACs:        {macs} ({note})")?,
            (None, note) => writeln!(f, "MACs:        not counted: {}", note.as_deref().unwrap_or_default())?,
        }
        let masks = (self.masks > 0).then(|| format!("{} masks", self.masks));
        let kinds = self.encodings.iter().map(|(kind, n)| format!("{n} values {kind}"));
        let annotations = masks.into_iter().chain(kinds).collect::<Vec<_>>().join(", ");
        writeln!(f, "annotations: {}\n", if annotations.is_empty() { "none" } else { &annotations })?;
        let width = self.layers.iter().map(|l| l.node.chars().count()).max().unwrap_or(0).clamp(5, 48);
        writeln!(
            f,
            "{:width$}  {:18}  {:>20}  {:>10}  {:>10}  {:>12}  {:>8}  stored as",
            "layer", "operator", "output", "parameters", "non-zero", "MACs", "bytes"
        )?;
        for l in &self.layers {
            let shape = l.output.as_ref().map_or("?".to_string(), |s| s.iter().map(usize::to_string).collect::<Vec<_>>().join("x"));
            let macs = l.macs.map_or("?".to_string(), |m| m.to_string());
            let encoding = l.encoding.as_deref().unwrap_or("float");
            let masked = if l.masked { ", masked" } else { "" };
            let stored = if l.parameters > 0 { format!("{encoding}{masked}") } else { String::new() };
            writeln!(
                f,
                "{:width$}  {:18}  {shape:>20}  {:>10}  {:>10}  {macs:>12}  {:>8}  {stored}",
                text::line(&l.node),
                text::line(&l.op_type),
                l.parameters,
                l.nonzeros,
                text::bytes(l.parameter_bytes)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use train::Batch;

    #[test]
    fn a_deployed_file_has_the_parameters_of_the_graph_it_was_lowered_from() {
        let folder = tempfile::tempdir().unwrap();
        let entry = zoo::find("lenet300-100").unwrap();
        let mut model = entry.build(&zoo::ZooOptions { input: vec![1, 8, 8], ..entry.default_options() }).unwrap();
        let half = prune::PruneSettings::new(0.5);
        prune::prune(&mut model, &half).unwrap();
        let noise = tensor::random::uniform(1, &[8, 1, 8, 8], 0.0, 1.0).unwrap();
        let batch = Batch { inputs: [("input".to_string(), noise)].into(), ..Batch::default() };
        quantize::quantize(&mut model, &quantize::QuantizeSettings::default(), std::iter::once(Ok(batch))).unwrap();
        let lowered = deploy::lower(&model, &deploy::LowerOptions::default()).unwrap().model;
        let seen = |name: &str, model: &Model| {
            let path = folder.path().join(name);
            onnx::save(model, &path).unwrap();
            inspect(&path, &BTreeMap::new()).unwrap()
        };
        let (annotated, deployed) = (seen("a.onnx", &model), seen("d.onnx", &lowered));
        assert_eq!(annotated.parameters, 64 * 300 + 300 + 300 * 100 + 100 + 1000 + 10);
        assert_eq!(annotated.parameters, deployed.parameters);
        assert!(annotated.nonzeros <= annotated.parameters / 2 + 410 && deployed.nonzeros <= annotated.nonzeros);
        assert!(deployed.nonzeros > 0 && deployed.layers.iter().all(|l| l.parameter_bytes < l.parameters * 2), "{deployed}");
        assert!(annotated.masks == 3 && annotated.to_string().contains("int8 per channel, masked"), "{annotated}");
        assert!(deployed.annotations == 0 && deployed.to_string().contains("int8 per channel\n"), "{deployed}");
    }
}
