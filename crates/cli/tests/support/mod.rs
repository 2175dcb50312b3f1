//! Runs the program in a folder of its own.
use espalier::data::npz;
use espalier::graph::{Dim, Model, Node, Value, ValueType};
use espalier::tensor::{DType, Tensor};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use tempfile::TempDir;

/// A folder that is gone after the test, in which the program runs.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub(crate) fn arrays(&self, name: &str, arrays: &[(&str, Tensor)]) {
        let arrays: BTreeMap<_, _> = arrays.iter().map(|(n, t)| (n.to_string(), t.clone())).collect();
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        npz::write(&path, &arrays).unwrap();
    }

    /// Runs the program with words separated by blanks.
    pub(crate) fn espalier(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_espalier"));
        command.args(line.split_whitespace()).current_dir(self.0.path()).env("NO_COLOR", "1").output().unwrap()
    }

    /// Runs the program, which must end with `code` and say `message` (a part of it) on stderr.
    #[track_caller]
    pub(crate) fn fails(&self, line: &str, code: i32, message: &str) {
        let output = self.espalier(line);
        let said = String::from_utf8_lossy(&output.stderr).replace(&format!("{}/", self.0.path().display()), "");
        println!("$ espalier {line}\n{}exit code {:?}\n", said, output.status.code());
        assert_eq!(output.status.code(), Some(code), "espalier {line}: {said}");
        assert!(said.contains(message), "espalier {line}: '{message}' is not said:\n{said}");
        assert!(!said.contains("panicked"), "espalier {line}: {said}");
    }
}

/// `y = Relu(x)`, x of shape `[N, 4]`.
pub(crate) fn relu() -> Model {
    one_node(13, Node::new("Relu", "act", &[], &[]))
}

/// A model of one node from `x`, float `[N, 4]`, to `y`.
pub(crate) fn one_node(opset: i64, node: Node) -> Model {
    let mut model = Model::new(opset);
    let shape = || Some(vec![Dim::Symbol("N".into()), Dim::Known(4)]);
    let ty = ValueType::Tensor { dtype: DType::F32, shape: shape() };
    let x = model.values.add(Value { name: "x".into(), ty: ty.clone(), ..Value::default() });
    let y = model.values.add(Value { name: "y".into(), ty, ..Value::default() });
    model.graph.inputs.push(x);
    model.graph.outputs.push(y);
    model.graph.nodes.push(Node { inputs: vec![Some(x)], outputs: vec![Some(y)], ..node });
    model
}
