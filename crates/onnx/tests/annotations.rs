//! Annotations are stored in the file, whatever their content.
use espalier_onnx as onnx;
use graph::{AttributeValue, Encoding, Graph, Model, Node, Setting, ValueId};
use proptest::prelude::*;
use tensor::Tensor;

/// `y = x * w` with a weight of `n` elements.
fn model(n: usize) -> Model {
    let mut m = Model::new(17);
    let w = m.values.add_constant("w", Tensor::vector(vec![0.5f32; n]));
    m.graph.constants.push(w);
    let (x, y) = (m.values.add_named("x"), m.values.add_named("y"));
    m.graph.inputs.push(x);
    m.graph.outputs.push(y);
    m.graph.nodes.push(Node::new("Mul", "mul", &[x, w], &[y]));
    m
}

fn setting() -> impl Strategy<Value = Setting> {
    let float = any::<f64>().prop_filter("JSON has finite numbers only", |v| v.is_finite());
    prop_oneof![
        any::<bool>().prop_map(Setting::Bool),
        any::<i64>().prop_map(Setting::Int),
        float.prop_map(Setting::Float),
        any::<String>().prop_map(Setting::Text),
    ]
}

fn encoding() -> impl Strategy<Value = Encoding> {
    let parameter = prop::collection::vec(any::<f32>(), 0..5).prop_map(Tensor::vector);
    let settings = prop::collection::btree_map("[a-z_]{1,8}", setting(), 0..5);
    let parameters = prop::collection::btree_map("scale|zero_point|codebook", parameter, 0..4);
    ("[a-z]{1,8}", settings, parameters).prop_map(|(kind, settings, parameters)| Encoding { kind, settings, parameters })
}

proptest! {
    #[test]
    fn they_read_back_as_written(
        mask in prop::option::of(prop::collection::vec(any::<bool>(), 1..40)),
        weight in prop::option::of(encoding()),
        activation in prop::option::of(encoding()),
    ) {
        let mut m = model(mask.as_ref().map_or(3, Vec::len));
        let (w, x) = (m.find("w").unwrap(), m.find("x").unwrap());
        m.annotations.entry(w).mask = mask.map(Tensor::vector);
        m.annotations.entry(w).encoding = weight;
        m.annotations.entry(x).encoding = activation;
        let back = onnx::from_bytes(&onnx::to_bytes(&m).unwrap(), None).unwrap();
        for name in ["w", "x"] {
            let (old, new) = (m.find(name).unwrap(), back.find(name).unwrap());
            let said = |a: Option<&graph::Annotation>| a.filter(|a| !a.is_empty()).cloned();
            prop_assert_eq!(said(m.annotations.get(old)), said(back.annotations.get(new)));
        }
        prop_assert_eq!(back.graph.constants.len(), 1);
        // Written again without an edit, the bytes are the same; with an edit, the annotations are kept.
        let bytes = onnx::to_bytes(&back).unwrap();
        prop_assert_eq!(&bytes, &back.source.as_ref().unwrap().bytes.to_vec());
        let mut edited = back.clone();
        edited.doc_string = "edited".into();
        let again = onnx::from_bytes(&onnx::to_bytes(&edited).unwrap(), None).unwrap();
        prop_assert_eq!(again.annotations.len(), m.annotations.len());
    }
}

#[test]
fn an_initializer_that_merely_has_our_prefix_stays() {
    let mut m = model(2);
    let v = m.values.add_constant("espalier/w/mine", Tensor::scalar(1f32));
    m.graph.constants.push(v);
    let w = m.find("w").unwrap();
    m.annotations.entry(w).mask = Some(Tensor::vector(vec![true, false]));
    let back = onnx::from_bytes(&onnx::to_bytes(&m).unwrap(), None).unwrap();
    assert!(back.find("espalier/w/mine").is_some());
    assert!(back.find("espalier/w/mask").is_none());
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    let mut m = model(2);
    let w = m.find("w").unwrap();
    let settings = [("scale".to_string(), Setting::Float(f64::NAN))].into();
    m.annotations.entry(w).encoding = Some(Encoding { kind: "affine".into(), settings, ..Encoding::default() });
    let error = onnx::to_bytes(&m).unwrap_err().to_string();
    assert!(error.contains("'scale' of 'w'"), "{error}");
}

/// Branches of an If whose values share names with an outer value and with each other; an annotation of a removed value.
#[test]
fn values_of_subgraphs_that_share_a_name_are_told_apart() {
    let mut m = model(2);
    let x = m.find("x").unwrap();
    let [condition, z] = ["condition", "z"].map(|n| m.values.add_named(n));
    let branch = |m: &mut Model, op: &str| {
        let [h, y] = ["h", "y"].map(|n| m.values.add_named(n));
        let nodes = vec![Node::new(op, "", &[x], &[h]), Node::new("Neg", "", &[h], &[y])];
        (h, y, AttributeValue::Graph(Box::new(Graph { nodes, outputs: vec![y], ..Graph::default() })))
    };
    let (h, y, then) = (branch)(&mut m, "Relu");
    let (other_h, _, other) = (branch)(&mut m, "Tanh");
    m.graph.inputs.push(condition);
    m.graph.outputs.push(z);
    m.graph.nodes.push(Node::new("If", "", &[condition], &[z]).with("then_branch", then).with("else_branch", other));
    m.verify().unwrap();
    let encoded = |kind: &str| Some(Encoding { kind: kind.into(), ..Encoding::default() });
    let outer = m.find("y").unwrap();
    let gone = m.values.add_named("gone");
    for (id, kind) in [(h, "first"), (other_h, "second"), (y, "third"), (outer, "outer"), (gone, "gone")] {
        m.annotations.entry(id).encoding = encoded(kind);
    }
    let back = onnx::from_bytes(&onnx::to_bytes(&m).unwrap(), None).unwrap();
    back.verify().unwrap();
    let kind = |v: ValueId| back.annotations.encoding(v).map(|e| e.kind.clone()).unwrap_or_default();
    let branches: Vec<&Graph> = back.graph.nodes[1].subgraphs().collect();
    let made = |branch: &Graph| branch.nodes.iter().map(|n| kind(n.output(0).unwrap())).collect::<Vec<_>>();
    assert_eq!((made(branches[0]), made(branches[1])), (vec!["first".into(), "third".into()], vec!["second".into(), String::new()]));
    assert_eq!((kind(back.find("y").unwrap()), back.annotations.len()), ("outer".into(), 4));
}
