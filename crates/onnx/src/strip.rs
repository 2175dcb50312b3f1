//! Removes an exporter's notes: stack traces, paths, class hierarchies. They have no effect on the computation.
use crate::attribute::{TENSOR, split_extra};
use crate::wire::{Fields, Message, Wire};
use graph::{Attribute, AttributeValue, Extra, Graph, Model, Node, Origin, Values};

/// Removes doc strings from a model and its functions, graphs, nodes, attributes, values and tensors, metadata of all of these
/// but the model, and the metadata of the model that PyTorch's exporter writes (`pkg.*`); other metadata (class names,
/// preprocessing, licences) stays. Returns the bytes saved.
pub fn strip(model: &mut Model) -> usize {
    let mut saved = 0;
    model.metadata.retain(|(key, value)| {
        let own = key.starts_with("pkg.");
        saved += if own { key.len() + value.len() } else { 0 };
        !own
    });
    text(&mut model.doc_string, &mut saved);
    graph(&mut model.graph, &mut saved);
    values(&mut model.values, &mut saved);
    for function in &mut model.functions {
        graph(&mut function.graph, &mut saved);
        values(&mut function.values, &mut saved);
        attributes(&mut function.attribute_defaults.list, &mut saved);
        without(&mut function.extra, &[14], &mut saved);
    }
    saved
}

fn values(values: &mut Values, saved: &mut usize) {
    let ids: Vec<_> = values.iter().map(|(id, _)| id).collect();
    for id in ids {
        let value = &mut values[id];
        without(&mut value.extra, &[3, 4], saved);
        let Some(constant) = &mut value.constant else { continue };
        match &mut constant.origin {
            Origin::ConstantNode { extra, .. } => {
                without(extra, &[6, 9], saved);
                attribute(&mut constant.extra, saved);
            }
            _ => without(&mut constant.extra, &[12, 16], saved),
        }
    }
}

fn graph(graph: &mut Graph, saved: &mut usize) {
    text(&mut graph.doc_string, saved);
    without(&mut graph.extra, &[16], saved);
    nodes(&mut graph.nodes, saved);
}

fn nodes(nodes: &mut [Node], saved: &mut usize) {
    for node in nodes {
        text(&mut node.doc_string, saved);
        without(&mut node.extra, &[9], saved);
        attributes(&mut node.attributes.list, saved);
    }
}

fn attributes(list: &mut [Attribute], saved: &mut usize) {
    for own in list {
        match &mut own.value {
            AttributeValue::Graph(sub) => graph(sub, saved),
            AttributeValue::Graphs(subs) => subs.iter_mut().for_each(|sub| graph(sub, saved)),
            AttributeValue::Other(whole) => without(whole, &[13], saved),
            _ => {}
        }
        attribute(&mut own.extra, saved);
    }
}

/// The carried-through fields of an attribute: its own, and those of its tensor, in a field of the tensor's number.
fn attribute(extra: &mut Extra, saved: &mut usize) {
    let (before, (mut of_tensor, mut own)) = (*saved, split_extra(extra));
    without(&mut of_tensor, &[12, 16], saved);
    without(&mut own, &[13], saved);
    if *saved > before {
        let mut rest = Message(own.0);
        if !of_tensor.0.is_empty() {
            rest.message(TENSOR, Message(of_tensor.0));
        }
        extra.0 = rest.0;
    }
}

fn text(text: &mut String, saved: &mut usize) {
    *saved += text.len();
    text.clear();
}

/// Removes the fields of these numbers from serialized fields; damaged fields stay.
fn without(extra: &mut Extra, numbers: &[u32], saved: &mut usize) {
    let mut kept = vec![];
    let mut fields = Fields::new(&extra.0);
    loop {
        match fields.next_field() {
            Ok(Some(field)) if numbers.contains(&field.number) && matches!(field.value, Wire::Bytes(_)) => *saved += field.raw.len(),
            Ok(Some(field)) => kept.extend_from_slice(field.raw),
            Ok(None) => break,
            Err(_) => return,
        }
    }
    extra.0 = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::{Constant, Function, Value, ValueType};
    use tensor::Tensor;

    #[test]
    fn traces_go_and_what_computes_stays() {
        // Field 9 (metadata_props, here `{key: "a"}`), and field 11, which is kept.
        let props = [0x4a, 3, 0x0a, 1, b'a'];
        let other = [0x5a, 1, b'x'];
        let mut model = Model::new(17);
        let x = model.values.add(Value {
            name: "x".into(),
            ty: ValueType::default(),
            extra: Extra(vec![0x1a, 2, b'h', b'i']),
            ..Value::default()
        });
        let w = model.values.add_constant("w", Tensor::scalar(1f32));
        let y = model.values.add(Value { name: "y".into(), ..Value::default() });
        let mut node = Node::new("Add", "n", &[], &[]);
        (node.inputs, node.outputs) = (vec![Some(x), Some(w)], vec![Some(y)]);
        node.doc_string = "File \"me/net.py\", line 3".into();
        node.extra = Extra([&props[..], &other].concat());
        model.graph.nodes.push(node);
        model.metadata_set("pkg.torch.onnx.trace", "me");
        model.metadata_set("names", "cat, dog");
        let saved = strip(&mut model);
        assert_eq!(saved, 4 + 24 + 5 + "pkg.torch.onnx.traceme".len());
        assert_eq!((model.graph.nodes[0].doc_string.as_str(), &model.graph.nodes[0].extra.0[..]), ("", &other[..]));
        assert_eq!(model.metadata, [("names".to_string(), "cat, dog".to_string())]);
        assert!(model.values[x].extra.0.is_empty());
        assert_eq!(strip(&mut model), 0);
    }

    #[test]
    fn a_path_goes_from_wherever_it_stands() {
        const PATH: &str = "somewhere/of/mine/net.py";
        let note = |number| {
            let mut m = Message::default();
            m.text(number, PATH);
            Extra(m.0)
        };
        // Notes of an attribute, and of its tensor.
        let both = || {
            let mut m = Message(note(13).0);
            m.message(TENSOR, Message(note(12).0));
            Extra(m.0)
        };
        let with = |name: &str, value, extra| Attribute { name: name.into(), value, extra };
        let one = || Tensor::scalar(1f32);
        let constant = || Constant {
            tensor: one(),
            origin: Origin::ConstantNode { name: "c".into(), attribute: "value".into(), extra: note(6) },
            extra: both(),
        };

        let mut f = Function { domain: "d".into(), name: "f".into(), ..Function::default() };
        let [a, b] = ["a", "b"].map(|name| f.values.add_named(name));
        let c = f.values.add_constant("c", one());
        f.values[c].constant = Some(constant());
        let mut inner = Node { doc_string: PATH.into(), ..Node::new("Add", "inner", &[a, c], &[b]) };
        inner.attributes.list = vec![with("i", AttributeValue::Int(1), note(13))];
        f.attribute_defaults.list = vec![with("j", AttributeValue::Int(1), note(13))];
        f.graph = Graph {
            doc_string: PATH.into(),
            inputs: vec![a],
            outputs: vec![b],
            constants: vec![c],
            nodes: vec![inner],
            ..Graph::default()
        };

        let mut model = Model { doc_string: PATH.into(), ..Model::new(17) };
        f.opsets = model.opsets.clone();
        model.functions = vec![f];
        let x = model.values.add(Value { name: "x".into(), extra: note(3), ..Value::default() });
        let y = model.values.add_named("y");
        let [stored, made] = ["stored", "made"].map(|name| model.values.add_constant(name, one()));
        model.values[stored].constant.as_mut().unwrap().extra = note(12);
        model.values[made].constant = Some(constant());
        let mut node = Node { domain: "d".into(), doc_string: PATH.into(), ..Node::new("f", "call", &[x, stored, made], &[y]) };
        let sub = Graph { doc_string: PATH.into(), ..Graph::default() };
        node.attributes.list = vec![
            with("t", AttributeValue::Tensor(one()), both()),
            with("g", AttributeValue::Graph(Box::new(sub)), note(13)),
            with("j", AttributeValue::Other(Extra([&[0x0a, 1, b'j'], &note(13).0[..]].concat())), Extra::default()),
        ];
        model.graph = Graph {
            doc_string: PATH.into(),
            inputs: vec![x],
            outputs: vec![y],
            constants: vec![stored, made],
            nodes: vec![node],
            ..Graph::default()
        };
        let times = |model: &Model| {
            let bytes = crate::to_bytes(model).unwrap();
            bytes.windows(PATH.len()).filter(|w| *w == PATH.as_bytes()).count()
        };
        assert_eq!(times(&model), 20);
        assert!(strip(&mut model) >= 20 * PATH.len());
        assert_eq!(times(&model), 0);
        assert_eq!(model.graph.nodes[0].attributes.get("t"), Some(&AttributeValue::Tensor(one())));
        assert_eq!(strip(&mut model), 0);
    }
}
