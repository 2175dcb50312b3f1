//! The real models are written back byte for byte, and an edited one keeps everything that was not edited.
use espalier_onnx as onnx;
use std::path::PathBuf;
use test_support::folders::shared_files;

fn models() -> Vec<PathBuf> {
    shared_files("models", "onnx")
}

#[test]
fn unedited_models_are_written_back_byte_for_byte() {
    for path in models() {
        let bytes = std::fs::read(&path).unwrap();
        let model = onnx::from_bytes(&bytes, path.parent()).unwrap();
        model.verify().unwrap();
        assert!(onnx::to_bytes(&model).unwrap() == bytes, "{} changed", path.display());
    }
}

#[test]
fn an_edited_model_reads_back_as_it_was_written() {
    for path in models() {
        let mut model = onnx::load(&path).unwrap();
        model.metadata_set("edited", "yes");
        let again = onnx::from_bytes(&onnx::to_bytes(&model).unwrap(), None).unwrap();
        // Values are numbered in the order of reading, which writing may change: compare them by content.
        assert_eq!(summary(&model), summary(&again), "{}", path.display());
    }
}

fn summary(m: &graph::Model) -> Vec<String> {
    let mut out = vec![format!("{} {:?} {:?} {:?}", m.ir_version, m.opsets, m.metadata, m.producer_name)];
    let name = |v: &Option<graph::ValueId>| v.map_or(String::new(), |v| m.values[v].name.clone());
    m.graph.visit(&mut |n| {
        let attributes: Vec<_> = n.attributes.list.iter().filter(|a| !matches!(a.value, graph::AttributeValue::Graph(_))).collect();
        out.push(format!(
            "{} {} {:?} {:?} {attributes:?}",
            n.op_type,
            n.name,
            n.inputs.iter().map(name).collect::<Vec<_>>(),
            n.outputs.iter().map(name).collect::<Vec<_>>()
        ));
    });
    let mut constants: Vec<String> =
        m.graph.constants.iter().map(|v| format!("{} {:?}", m.values[*v].name, m.values[*v].constant)).collect();
    constants.sort();
    out.extend(constants);
    out
}
