//! Finding the logits: distillation compares them, not probabilities.
use graph::{Model, ValueId};
use train::TrainError;

/// The value that a loss on logits reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logits {
    /// The value.
    pub value: ValueId,
    /// A sentence for the user where it is not the output itself.
    pub hint: Option<String>,
}

/// The logits behind an output of the main graph: what a final Softmax or LogSoftmax reads, else the output itself.
/// `output` is the output's name; `None` is the first.
///
/// # Errors
/// [`TrainError::Setting`] if the model has no such output, with those it has.
pub fn logits_value(model: &Model, output: Option<&str>) -> Result<Logits, TrainError> {
    let outputs = &model.graph.outputs;
    let found = match output {
        None => outputs.first().copied(),
        Some(name) => outputs.iter().copied().find(|v| model.values[*v].name == name),
    };
    let Some(end) = found else {
        let known: Vec<&str> = outputs.iter().map(|v| model.values[*v].name.as_str()).collect();
        let what = format!("'{}' is not an output of the graph (outputs: {})", output.unwrap_or_default(), known.join(", "));
        return Err(TrainError::Setting { setting: "output".into(), what });
    };
    let mut value = end;
    while let Some(node) = model.graph.producer(value).map(|i| &model.graph.nodes[i]) {
        match (node.op_type.as_str(), node.input(0)) {
            ("Identity", Some(v)) if node.is_onnx() => value = v,
            ("Softmax" | "LogSoftmax", Some(v)) if node.is_onnx() => {
                let hint = format!(
                    "output '{}' ends in a {}: the loss reads '{}' before it",
                    model.values[end].name, node.op_type, model.values[v].name
                );
                return Ok(Logits { value: v, hint: Some(hint) });
            }
            _ => break,
        }
    }
    // An Identity alone hides nothing: the output is read as it is.
    Ok(Logits { value: end, hint: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::Node;

    fn model(ops: &[&str]) -> Model {
        let mut m = Model::new(17);
        let mut last = m.values.add_named("x");
        m.graph.inputs.push(last);
        for (i, op) in ops.iter().enumerate() {
            let next = m.values.add_named(format!("v{i}"));
            m.graph.nodes.push(Node::new(op, "", &[last], &[next]));
            last = next;
        }
        m.graph.outputs.push(last);
        m
    }

    #[test]
    fn a_final_softmax_is_skipped_with_a_hint() {
        let m = model(&["Relu", "Softmax", "Identity"]);
        let l = logits_value(&m, Some("v2")).unwrap();
        assert_eq!(m.values[l.value].name, "v0");
        assert!(l.hint.unwrap().contains("Softmax"));
        let plain = model(&["Softmax", "Relu"]);
        assert_eq!(logits_value(&plain, None).unwrap(), Logits { value: plain.graph.outputs[0], hint: None });
        assert!(logits_value(&plain, Some("y")).unwrap_err().to_string().contains("v1"));
    }
}
