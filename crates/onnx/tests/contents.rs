//! The contents of a file survive an edit: element types, origins of constants, scopes, functions, external data.
use espalier_onnx as onnx;
use graph::{
    Attribute, AttributeValue, Attributes, Constant, Extra, Function, Graph, Model, Node, Opset, Origin, Value, ValueId, inline_functions,
};
use std::path::Path;
use std::sync::Arc;
use tensor::{Buffer, DType, Tensor, bf16, f16};

/// Adds a constant of an origin to the main graph.
fn constant(m: &mut Model, name: &str, tensor: Tensor, origin: Origin) -> ValueId {
    let v = m.values.add_constant(name, tensor.clone());
    m.values[v].constant = Some(Constant { tensor, origin, extra: Extra::default() });
    m.graph.constants.push(v);
    v
}

fn again(m: &Model) -> Model {
    onnx::from_bytes(&onnx::to_bytes(m).unwrap(), None).unwrap()
}

fn read<'m>(m: &'m Model, name: &str) -> &'m Constant {
    m.values[m.find(name).unwrap()].constant.as_ref().unwrap()
}

#[test]
fn every_element_type_survives() {
    let byte = |dtype, v: Vec<u8>| Tensor::from_buffer(dtype, Buffer::U8(Arc::new(v)), [3]).unwrap();
    let signed = |dtype, v: Vec<i8>| Tensor::from_buffer(dtype, Buffer::I8(Arc::new(v)), [3]).unwrap();
    let tensors = vec![
        Tensor::vector(vec![1f32, -0.0, f32::NAN]),
        Tensor::vector(vec![1f64, f64::INFINITY]),
        Tensor::vector(vec![f16::from_f32(1.5), f16::NEG_INFINITY]),
        Tensor::vector(vec![bf16::from_f32(-2.5)]),
        byte(DType::F8E4M3FN, vec![1, 2, 255]),
        byte(DType::F8E4M3FNUZ, vec![1, 2, 255]),
        byte(DType::F8E5M2, vec![1, 2, 255]),
        byte(DType::F8E5M2FNUZ, vec![1, 2, 255]),
        byte(DType::F8E8M0, vec![1, 2, 255]),
        byte(DType::F4E2M1, vec![0, 7, 15]),
        byte(DType::U4, vec![0, 7, 15]),
        byte(DType::U2, vec![0, 1, 3]),
        signed(DType::I4, vec![-8, 0, 7]),
        signed(DType::I2, vec![-2, 0, 1]),
        Tensor::vector(vec![i8::MIN, 3]),
        Tensor::vector(vec![i16::MIN, 3]),
        Tensor::vector(vec![i32::MIN, 3]),
        Tensor::vector(vec![i64::MIN, 3]),
        Tensor::vector(vec![u8::MAX, 3]),
        Tensor::vector(vec![u16::MAX, 3]),
        Tensor::vector(vec![u32::MAX, 3]),
        Tensor::vector(vec![u64::MAX, 3]),
        Tensor::vector(vec![true, false]),
        Tensor::vector(vec!["a".to_string(), String::new(), "ä".to_string()]),
        Tensor::vector(vec![[1f32, 2.0]]),
        Tensor::vector(vec![[1f64, 2.0]]),
        Tensor::scalar(7i64),
        Tensor::new::<f32>(vec![], [2, 0]).unwrap(),
    ];
    let mut m = Model::new(28);
    for (i, t) in tensors.iter().enumerate() {
        constant(&mut m, &format!("c{i}"), t.clone(), Origin::Initializer);
    }
    let back = again(&m);
    for (i, t) in tensors.iter().enumerate() {
        assert_eq!(&read(&back, &format!("c{i}")).tensor, t);
    }
}

#[test]
fn constants_go_back_where_they_came_from() {
    let node = |attribute: &str| Origin::ConstantNode { name: "n".into(), attribute: attribute.into(), extra: Extra::default() };
    let cases = vec![
        (node("value"), Tensor::new(vec![1f32, 2.0], [1, 2]).unwrap()),
        (node("value_float"), Tensor::scalar(1.5f32)),
        (node("value_floats"), Tensor::vector(vec![1.5f32, 2.5])),
        (node("value_int"), Tensor::scalar(-3i64)),
        (node("value_ints"), Tensor::vector(vec![-3i64, 4])),
        (node("value_string"), Tensor::scalar("s".to_string())),
        (node("value_strings"), Tensor::vector(vec!["s".to_string(), "t".to_string()])),
        (Origin::SparseInitializer, Tensor::new(vec![0f32, 2.0, 0.0, 4.0], [2, 2]).unwrap()),
        (Origin::Initializer, Tensor::scalar(2u8)),
    ];
    let mut m = Model::new(17);
    for (i, (origin, t)) in cases.iter().enumerate() {
        constant(&mut m, &format!("c{i}"), t.clone(), origin.clone());
    }
    let back = again(&m);
    for (i, (origin, t)) in cases.iter().enumerate() {
        let c = read(&back, &format!("c{i}"));
        assert_eq!((&c.tensor, &c.origin), (t, origin));
    }
}

#[test]
fn an_input_may_have_a_default() {
    let mut m = Model::new(17);
    let v = constant(&mut m, "x", Tensor::scalar(1f32), Origin::Initializer);
    m.graph.inputs.push(v);
    let back = again(&m);
    assert_eq!(back.graph.inputs, back.graph.constants);
    assert!(back.free_inputs().is_empty());
}

#[test]
fn branches_may_use_one_name_and_read_the_outer_scope() {
    let mut m = Model::new(17);
    let c = constant(&mut m, "c", Tensor::scalar(true), Origin::Initializer);
    let x = m.values.add_named("x");
    m.graph.inputs.push(x);
    let mut branch = |op: &str| {
        let inner = m.values.add_named("inner");
        Graph { name: op.into(), nodes: vec![Node::new(op, op, &[x], &[inner])], outputs: vec![inner], ..Graph::default() }
    };
    let (then, otherwise) = (branch("Relu"), branch("Neg"));
    let y = m.values.add_named("y");
    m.graph.outputs.push(y);
    m.graph.nodes.push(
        Node::new("If", "if", &[c], &[y])
            .with("then_branch", AttributeValue::Graph(Box::new(then)))
            .with("else_branch", AttributeValue::Graph(Box::new(otherwise))),
    );
    m.verify().unwrap();
    let back = again(&m);
    let graphs: Vec<&Graph> = back.graph.nodes[0].subgraphs().collect();
    assert_ne!(graphs[0].outputs, graphs[1].outputs);
    assert!(graphs.iter().all(|g| g.nodes[0].input(0) == back.find("x")));
}

#[test]
fn functions_survive_and_are_inlined() {
    let mut f = Function {
        domain: "local".into(),
        name: "Scale".into(),
        overload: "half".into(),
        attributes: vec!["alpha".into()],
        opsets: vec![Opset { domain: String::new(), version: 17, extra: Extra::default() }],
        ..Function::default()
    };
    let x = f.values.add_named("x");
    let (k, y) = (f.values.add_named("k"), f.values.add_named("y"));
    let origin = Origin::ConstantNode { name: "k".into(), attribute: "value_float".into(), extra: Extra::default() };
    f.values[k].constant = Some(Constant { tensor: Tensor::scalar(2f32), origin, extra: Extra::default() });
    f.values[k].ty = graph::ValueType::Tensor { dtype: DType::F32, shape: Some(vec![]) };
    f.graph = Graph { inputs: vec![x], outputs: vec![y, k], constants: vec![k], ..Graph::default() };
    let reference = Attribute { name: "alpha".into(), value: AttributeValue::Reference("alpha".into()), extra: Extra(vec![0xa0, 1, 1]) };
    f.graph.nodes.push(Node { attributes: Attributes { list: vec![reference] }, ..Node::new("LeakyRelu", "leak", &[x], &[y]) });
    let mut m = Model::new(17);
    m.opsets.push(Opset { domain: "local".into(), version: 1, extra: Extra::default() });
    m.functions = vec![Function { overload: String::new(), ..f.clone() }, f.clone()];
    m.functions[0].graph.nodes.clear();
    m.functions[0].graph.outputs = vec![x];
    let [a, b, c] = ["a", "b", "c"].map(|n| m.values.add_named(n));
    m.graph.inputs.push(a);
    m.graph.outputs.extend([b, c]);
    let call = Node { domain: "local".into(), overload: "half".into(), ..Node::new("Scale", "call", &[a], &[b, c]) };
    m.graph.nodes.push(call.with("alpha", AttributeValue::Float(0.25)));
    let back = again(&m);
    assert_eq!(back.functions[1].overload, "half");
    assert_eq!(back.functions[1].graph.nodes, f.graph.nodes);

    let flat = inline_functions(&back).unwrap();
    flat.verify().unwrap();
    let ops: Vec<&str> = flat.graph.nodes.iter().map(|n| n.op_type.as_str()).collect();
    assert_eq!(ops, ["LeakyRelu", "Identity"]);
    assert_eq!(flat.graph.nodes[0].float("alpha").unwrap(), Some(0.25));
}

#[test]
fn the_name_of_a_tensor_in_an_attribute_survives_an_edit() {
    // name "t" and data_type 1 after an empty graph: written by hand because the graph keeps only the tensor's elements.
    let tensor = [&[0x10, 1, 0x42, 1][..], b"t", &[0x4a, 4, 0, 0, 0, 0]].concat();
    let attribute = [&[0x0a, 1][..], b"a", &[0x2a, tensor.len() as u8], &tensor, &[0xa0, 1, 4]].concat();
    let node = [&[0x12, 1][..], b"y", &[0x22, 1], b"Q", &[0x2a, attribute.len() as u8], &attribute].concat();
    let graph = [&[0x0a, node.len() as u8][..], &node].concat();
    let file = [&[0x08, 8, 0x3a, graph.len() as u8][..], &graph, &[0x42, 2, 0x10, 17]].concat();
    let mut m = onnx::from_bytes(&file, None).unwrap();
    m.metadata_set("edited", "yes");
    let back = again(&m);
    assert_eq!(back.graph, m.graph);
    assert!(!back.graph.nodes[0].attributes.list[0].extra.0.is_empty());
}

/// A model `m.onnx` whose weight lies in `data/w.bin`.
fn external(folder: &Path) -> Model {
    external_with(folder, &[1.0, 2.0, 3.0])
}

fn external_with(folder: &Path, weight: &[f32]) -> Model {
    let mut m = Model::new(17);
    let origin = Origin::External { location: "data/w.bin".into(), offset: 0, entries: vec![] };
    constant(&mut m, "w", Tensor::vector(weight.to_vec()), origin);
    onnx::save(&m, &folder.join("m.onnx")).unwrap();
    // Moved by hand to a place where saving never puts it.
    std::fs::create_dir(folder.join("data")).unwrap();
    std::fs::rename(folder.join("m.onnx.data"), folder.join("data/w.bin")).unwrap();
    let bytes = std::fs::read(folder.join("m.onnx")).unwrap();
    let at = bytes.windows(11).position(|w| w == b"m.onnx.data").unwrap();
    // Of one length, and the same place as `data/w.bin`.
    let moved = [&bytes[..at], b"data//w.bin", &bytes[at + 11..]].concat();
    std::fs::write(folder.join("m.onnx"), moved).unwrap();
    onnx::load(&folder.join("m.onnx")).unwrap()
}

#[test]
fn external_data_stays_external_moves_along_and_is_embedded_by_an_edit_in_place() {
    let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let m = external(home.path());
    let original = std::fs::read(home.path().join("m.onnx")).unwrap();
    let data = std::fs::read(home.path().join("data/w.bin")).unwrap();
    assert_eq!(data.len(), 12);
    assert!(matches!(read(&m, "w").origin, Origin::External { .. }));

    onnx::save(&m, &home.path().join("copy.onnx")).unwrap();
    assert_eq!(std::fs::read(home.path().join("copy.onnx")).unwrap(), original);

    onnx::save(&m, &elsewhere.path().join("m.onnx")).unwrap();
    let moved = onnx::load(&elsewhere.path().join("m.onnx")).unwrap();
    assert_eq!(read(&moved, "w").tensor, read(&m, "w").tensor);
    assert_eq!(std::fs::read(elsewhere.path().join("m.onnx.data")).unwrap(), data);
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 2, "nothing but the model and its data");

    let mut edited = m.clone();
    let w = edited.find("w").unwrap();
    edited.values.set_tensor(w, Tensor::vector(vec![9f32]));
    onnx::save(&edited, &home.path().join("edited.onnx")).unwrap();
    let back = onnx::load(&home.path().join("edited.onnx")).unwrap();
    assert_eq!(read(&back, "w").tensor, Tensor::vector(vec![9f32]));
    assert_eq!(std::fs::read(home.path().join("data/w.bin")).unwrap(), data);
}

#[test]
fn no_file_is_written_that_was_not_named() {
    let [a, b, to] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (one, two) = (external_with(a.path(), &[1.0]), external_with(b.path(), &[2.0]));
    let place = |name: &str| to.path().join(name);
    // The folder already has a file with the name of both models' data.
    std::fs::create_dir(place("data")).unwrap();
    std::fs::write(place("data/w.bin"), b"another's").unwrap();
    let weight = |name: &str| read(&onnx::load(&place(name)).unwrap(), "w").tensor.clone();
    onnx::save(&one, &place("one.onnx")).unwrap();
    onnx::save(&two, &place("two.onnx")).unwrap();
    assert_eq!((weight("one.onnx"), weight("two.onnx")), (Tensor::vector(vec![1f32]), Tensor::vector(vec![2f32])));
    assert_eq!(std::fs::read(place("data/w.bin")).unwrap(), b"another's");

    // The same output again: its own data file is replaced, the other's is not.
    onnx::save(&two, &place("one.onnx")).unwrap();
    assert_eq!((weight("one.onnx"), weight("two.onnx")), (Tensor::vector(vec![2f32]), Tensor::vector(vec![2f32])));

    std::fs::write(place("three.onnx.data"), b"somebody's").unwrap();
    let refused = onnx::save(&one, &place("three.onnx")).unwrap_err().to_string();
    assert!(refused.contains("three.onnx.data exists already"), "{refused}");
    assert!(std::fs::read(place("three.onnx.data")).unwrap() == b"somebody's" && !place("three.onnx").exists());

    let own = a.path().join("data/w.bin");
    let before = std::fs::read(&own).unwrap();
    let refused = onnx::save(&one, &own).unwrap_err().to_string();
    assert!(refused.contains("the model's own data"), "{refused}");
    assert_eq!(std::fs::read(&own).unwrap(), before);
}

#[test]
fn external_data_that_is_missing_short_or_outside_is_refused() {
    let home = tempfile::tempdir().unwrap();
    external(home.path());
    let (file, data) = (home.path().join("m.onnx"), home.path().join("data/w.bin"));
    let bytes = std::fs::read(&file).unwrap();
    let error = |b: &[u8]| onnx::from_bytes(b, Some(home.path())).unwrap_err().to_string();
    assert!(onnx::from_bytes(&bytes, None).unwrap_err().to_string().contains("was not read from a file"));

    std::fs::write(&data, [0; 11]).unwrap();
    assert!(error(&bytes).contains("needs 12 bytes"), "{}", error(&bytes));
    std::fs::remove_file(&data).unwrap();
    assert!(error(&bytes).contains("w.bin"), "{}", error(&bytes));

    let at = bytes.windows(11).position(|w| w == b"data//w.bin").unwrap();
    let mut outside = bytes.clone();
    outside[at..at + 11].copy_from_slice(b"../../../xx");
    assert!(error(&outside).contains("leaves the model's folder"), "{}", error(&outside));
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_partial_one() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("m.onnx");
    onnx::save(&Model::new(17), &target).unwrap();
    let before = std::fs::read(&target).unwrap();
    let mut broken = Model::new(17);
    broken.graph.outputs.push(ValueId(9));
    assert!(onnx::save(&broken, &target).is_err());
    assert_eq!(std::fs::read(&target).unwrap(), before);
    // A folder of the target's name makes the rename fail.
    let folder = home.path().join("taken");
    std::fs::create_dir(&folder).unwrap();
    assert!(onnx::save(&Model::new(17), &folder).is_err());
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2);
}

#[test]
fn types_other_than_tensors_are_carried_through() {
    let mut m = Model::new(17);
    // TypeProto { sequence_type { elem_type { tensor_type { elem_type: 1 } } } }
    let ty = graph::ValueType::Other(Extra(vec![0x22, 6, 0x0a, 4, 0x0a, 2, 0x08, 1]));
    let v = m.values.add(Value { name: "s".into(), ty: ty.clone(), ..Value::default() });
    m.graph.inputs.push(v);
    let back = again(&m);
    assert_eq!(back.values[back.graph.inputs[0]].ty, ty);
}

/// Before version 4 of the format, every initializer is an input too: a file with another initializer is written with a newer
/// version.
#[test]
fn a_constant_of_its_own_raises_the_version_of_the_format() {
    let mut m = Model::new(7);
    let x = m.values.add_named("x");
    m.values[x].ty = graph::ValueType::Tensor { dtype: tensor::DType::F32, shape: None };
    let w = m.values.add_constant("w", tensor::Tensor::vector(vec![1f32]));
    let y = m.values.add_named("y");
    m.graph.inputs = vec![x, w];
    m.graph.constants.push(w);
    m.graph.outputs.push(y);
    m.graph.nodes.push(graph::Node::new("Add", "add", &[x, w], &[y]));
    let version = |m: &Model| onnx::from_bytes(&onnx::to_bytes(m).unwrap(), None).unwrap().ir_version;
    assert_eq!(version(&m), 3);
    m.graph.inputs.pop();
    assert_eq!(version(&m), 4);
}
