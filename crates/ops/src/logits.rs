//! The logits of an output, which losses and metrics on classes read.
use crate::registry::find;
use graph::{Model, ValueId};

/// The value that a loss on logits reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logits {
    /// Value that holds the logits.
    pub value: ValueId,
    /// Index in the main graph of the node that makes probabilities of the logits; `None` if the output itself is read.
    pub behind: Option<usize>,
}

/// The logits of an output of the main graph: the input of a final operator that gives probabilities (Softmax, LogSoftmax), also
/// with Identity nodes after it; else the output itself.
pub fn logits(model: &Model, output: ValueId) -> Logits {
    let mut value = output;
    while let Some(at) = model.graph.producer(value) {
        let node = &model.graph.nodes[at];
        let (Some(operator), Some(input)) = (find(&node.domain, &node.op_type), node.input(0)) else { break };
        if operator.gives_probabilities() {
            return Logits { value: input, behind: Some(at) };
        }
        if !(node.is_onnx() && node.op_type == "Identity") {
            break;
        }
        value = input;
    }
    Logits { value: output, behind: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::Node;

    /// A chain of operators whose last one computes the output; its values are `x`, `v0`, `v1`, ...
    fn chain(operators: &[&str]) -> Model {
        let mut m = Model::new(17);
        let mut last = m.values.add_named("x");
        m.graph.inputs.push(last);
        for (i, op) in operators.iter().enumerate() {
            let next = m.values.add_named(format!("v{i}"));
            m.graph.nodes.push(Node::new(op, "", &[last], &[next]));
            last = next;
        }
        m.graph.outputs.push(last);
        m
    }

    #[test]
    fn a_final_softmax_is_looked_behind_and_nothing_else() {
        for (operators, expected, behind) in [
            (&["Relu", "Softmax"][..], "v0", Some(1)),
            (&["Relu", "LogSoftmax", "Identity"], "v0", Some(1)),
            (&["Softmax", "Relu"], "v1", None),
            (&["Relu", "Identity"], "v1", None),
            (&["Softmax", "Hardmax"], "v1", None),
            (&[], "x", None),
        ] {
            let m = chain(operators);
            let found = logits(&m, m.graph.outputs[0]);
            assert_eq!((m.values[found.value].name.as_str(), found.behind), (expected, behind), "{operators:?}");
        }
        let mut foreign = chain(&["Relu", "Softmax"]);
        foreign.graph.nodes[1].domain = "com.example".into();
        assert_eq!(logits(&foreign, foreign.graph.outputs[0]).behind, None);
    }
}
