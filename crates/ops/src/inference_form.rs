//! Operators that a file leaves in training form.
use crate::OpError;
use graph::{Graph, GraphError, Model, Node, ValueId};
use std::collections::HashMap;

/// Turns BatchNormalization and Dropout in training form (`training_mode` set) into inference form: BatchNormalization uses its
/// running statistics, Dropout passes its input on. In training form a sample's result depends on the other samples of its batch,
/// or on chance. Returns what was changed, as sentences.
///
/// # Errors
/// [`OpError::Graph`] for a BatchNormalization whose batch statistics something reads, by name.
pub fn to_inference_form(model: &mut Model) -> Result<Vec<String>, OpError> {
    let uses = model.graph.use_counts();
    let mut turned = Turned::default();
    let mut graph = std::mem::take(&mut model.graph);
    let result = in_graph(model, &mut graph, &uses, &mut turned);
    model.graph = graph;
    result?;
    if !turned.norms.is_empty() || !turned.dropouts.is_empty() {
        model.remove_dead();
    }
    Ok(turned.sentences())
}

#[derive(Default)]
struct Turned {
    norms: Vec<String>,
    /// BatchNormalizations with initial running statistics (0 and 1).
    fresh: Vec<String>,
    dropouts: Vec<String>,
}

impl Turned {
    fn sentences(&self) -> Vec<String> {
        let mut out = vec![];
        let list = |names: &[String]| match names.len() {
            0..=3 => format!("'{}'", names.join("', '")),
            n => format!("'{}' and {} more", names[..3].join("', '"), n - 3),
        };
        if !self.norms.is_empty() {
            let fresh = match self.fresh.len() {
                0 => String::new(),
                _ => format!(" (those of {} are 0 and 1, as before any training)", list(&self.fresh)),
            };
            out.push(format!(
                "{} BatchNormalization in training form, where a sample's result depends on the others in its batch, use their running \
                 statistics from here on{fresh}: {}",
                self.norms.len(),
                list(&self.norms)
            ));
        }
        if !self.dropouts.is_empty() {
            out.push(format!(
                "{} Dropout in training form drop nothing from here on, except in training: {}",
                self.dropouts.len(),
                list(&self.dropouts)
            ));
        }
        out
    }
}

fn in_graph(model: &Model, graph: &mut Graph, uses: &HashMap<ValueId, usize>, turned: &mut Turned) -> Result<(), OpError> {
    for node in &mut graph.nodes {
        for sub in node.subgraphs_mut() {
            in_graph(model, sub, uses, turned)?;
        }
        let label = node.label(&model.values);
        match node.op_type.as_str() {
            "BatchNormalization" if node.is_onnx() && trains(model, node)? => {
                if let Some(read) = node.outputs.iter().skip(1).flatten().find(|v| uses.contains_key(v)) {
                    let what = format!(
                        "normalizes by the statistics of each batch, and hands them on as '{}'; export the network in inference form",
                        model.values[*read].name
                    );
                    return Err(GraphError::Node { node: label, op_type: node.op_type.clone(), what }.into());
                }
                node.outputs.truncate(1);
                node.attributes.remove("training_mode");
                if model.onnx_opset() < 7 {
                    node.attributes.set("is_test", graph::AttributeValue::Int(1));
                }
                if is_all(model, node, 3, 0.0) && is_all(model, node, 4, 1.0) {
                    turned.fresh.push(label.clone());
                }
                turned.norms.push(label);
            }
            "Dropout"
                if node.is_onnx() && node.input(2).and_then(|v| model.constant(v)).is_some_and(|t| t.item::<bool>().unwrap_or(false)) =>
            {
                node.inputs.truncate(2);
                turned.dropouts.push(label);
            }
            _ => {}
        }
    }
    Ok(())
}

fn trains(model: &Model, node: &Node) -> Result<bool, OpError> {
    Ok(match model.onnx_opset() {
        14.. => node.int_or("training_mode", 0)? != 0,
        7..14 => false,
        _ => node.int_or("is_test", 0)? == 0 && node.outputs.iter().skip(1).any(Option::is_some),
    })
}

fn is_all(model: &Model, node: &Node, input: usize, value: f64) -> bool {
    let list = node.input(input).and_then(|v| model.values.tensor(v)).and_then(|t| t.to_f64_vec().ok());
    list.is_some_and(|list| list.iter().all(|v| *v == value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::AttributeValue;
    use tensor::Tensor;

    fn model() -> Model {
        let mut m = Model::new(15);
        let x = m.values.add_named("x");
        m.graph.inputs.push(x);
        let mut constant = |name: &str, t: Tensor| {
            let id = m.values.add_constant(name, t);
            m.graph.constants.push(id);
            id
        };
        let ones = || Tensor::vector(vec![1f32, 1.0]);
        let norm = [constant("g", ones()), constant("b", ones()), constant("m", Tensor::vector(vec![0f32, 0.0])), constant("v", ones())];
        let dropped = [constant("ratio", Tensor::scalar(0.5f32)), constant("training", Tensor::scalar(true))];
        let [h, m2, v2, y] = ["h", "m2", "v2", "y"].map(|n| m.values.add_named(n));
        let inputs: Vec<ValueId> = std::iter::once(x).chain(norm).collect();
        let node = Node::new("BatchNormalization", "norm", &inputs, &[h, m2, v2]);
        m.graph.nodes.push(node.with("training_mode", AttributeValue::Int(1)));
        m.graph.nodes.push(Node::new("Dropout", "drop", &[h, dropped[0], dropped[1]], &[y]));
        m.graph.outputs.push(y);
        m.verify().unwrap();
        m
    }

    #[test]
    fn training_form_becomes_inference_form_and_is_told() {
        let mut m = model();
        let notes = to_inference_form(&mut m).unwrap();
        m.verify().unwrap();
        assert!(notes[0].contains("'norm'") && notes[0].contains("as before any training"), "{notes:?}");
        assert!(notes[1].contains("'drop'"), "{notes:?}");
        assert_eq!((m.graph.nodes[0].outputs.len(), m.graph.nodes[0].int_or("training_mode", 0).unwrap()), (1, 0));
        assert_eq!(m.graph.nodes[1].inputs.len(), 2);
        let before = m.clone();
        assert!(to_inference_form(&mut m).unwrap().is_empty());
        assert_eq!(m, before);
    }

    #[test]
    fn statistics_that_are_handed_on_are_refused_by_name() {
        let mut m = model();
        let read = m.find("m2").unwrap();
        m.graph.outputs.push(read);
        let error = to_inference_form(&mut m).unwrap_err().to_string();
        assert!(error.contains("norm") && error.contains("'m2'"), "{error}");
    }
}
