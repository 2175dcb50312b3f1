//! Finding the logits: losses and metrics on classes use them instead of probabilities.
use crate::TrainError;
use graph::{Model, ValueId};

/// The value that a loss on logits reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logits {
    /// Value that holds the logits.
    pub value: ValueId,
    /// A sentence for the user if it is not the output itself.
    pub hint: Option<String>,
}

/// The logits of the model's first output: [`logits_of`] without a name.
///
/// # Errors
/// [`TrainError::Setting`] if the model has no output.
pub fn logits(model: &Model) -> Result<ValueId, TrainError> {
    logits_of(model, None).map(|l| l.value)
}

/// The logits of an output of the main graph: the input of a final Softmax or LogSoftmax, else the output itself. `output` is the
/// output's name; `None` is the first.
///
/// # Errors
/// [`TrainError::Setting`] if the model has no such output, listing its outputs.
pub fn logits_of(model: &Model, output: Option<&str>) -> Result<Logits, TrainError> {
    let outputs = &model.graph.outputs;
    let wrong = |what: String| TrainError::Setting { setting: "output".into(), what };
    let found = match output {
        None => outputs.first().copied(),
        Some(name) => outputs.iter().copied().find(|v| model.values[*v].name == name),
    };
    let Some(end) = found else {
        let known: Vec<&str> = outputs.iter().map(|v| model.values[*v].name.as_str()).collect();
        return Err(wrong(match output {
            Some(name) => format!("'{name}' is not an output of the graph (outputs: {})", known.join(", ")),
            None => "the model has no output".into(),
        }));
    };
    let ops::Logits { value, behind } = ops::logits(model, end);
    let hint = behind.map(|at| {
        let (output, read) = (&model.values[end].name, &model.values[value].name);
        format!("output '{output}' ends in a {}: the loss reads '{read}' before it", model.graph.nodes[at].op_type)
    });
    Ok(Logits { value, hint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::Node;

    #[test]
    fn a_final_softmax_is_skipped_with_a_hint_and_an_unknown_output_refused() {
        let mut m = Model::new(17);
        let [x, y, p] = ["x", "y", "p"].map(|name| m.values.add_named(name));
        m.graph.inputs.push(x);
        assert!(logits(&m).unwrap_err().to_string().contains("no output"));
        m.graph.nodes.push(Node::new("Relu", "relu", &[x], &[y]));
        m.graph.nodes.push(Node::new("Softmax", "softmax", &[y], &[p]));
        m.graph.outputs = vec![p, x];
        let found = logits_of(&m, Some("p")).unwrap();
        assert_eq!((found.value, logits(&m).unwrap()), (y, y));
        assert_eq!(found.hint.unwrap(), "output 'p' ends in a Softmax: the loss reads 'y' before it");
        assert_eq!(logits_of(&m, Some("x")).unwrap(), Logits { value: x, hint: None });
        let refused = logits_of(&m, Some("y")).unwrap_err().to_string();
        assert!(refused.contains("'y' is not an output") && refused.contains("outputs: p, x"), "{refused}");
    }
}
