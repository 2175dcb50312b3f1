//! What an exporter notes for itself: stack traces, paths, class hierarchies. Nothing of it computes.
use crate::wire::{Fields, Wire};
use graph::{Extra, Graph, Model, Node, Origin};

/// Takes doc strings and metadata of graphs, nodes, values and tensors out of a model, and the model's own metadata of
/// PyTorch's exporter (`pkg.*`); other metadata (class names, preprocessing, licences) stays. Returns the bytes that this saves.
pub fn strip(model: &mut Model) -> usize {
    let mut saved = 0;
    model.metadata.retain(|(key, value)| {
        let own = key.starts_with("pkg.");
        saved += if own { key.len() + value.len() } else { 0 };
        !own
    });
    graph(&mut model.graph, &mut saved);
    for function in &mut model.functions {
        text(&mut function.graph.doc_string, &mut saved);
        nodes(&mut function.graph.nodes, &mut saved);
        without(&mut function.extra, &[14], &mut saved);
    }
    let ids: Vec<_> = model.values.iter().map(|(id, _)| id).collect();
    for id in ids {
        let value = &mut model.values[id];
        without(&mut value.extra, &[3, 4], &mut saved);
        if let Some(constant) = &mut value.constant {
            without(&mut constant.extra, &[12, 16], &mut saved);
            if let Origin::ConstantNode { extra, .. } = &mut constant.origin {
                without(extra, &[6, 9], &mut saved);
            }
        }
    }
    saved
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
        node.subgraphs_mut().for_each(|sub| graph(sub, saved));
    }
}

fn text(text: &mut String, saved: &mut usize) {
    *saved += text.len();
    text.clear();
}

/// Takes fields of these numbers out of serialized ones; damaged ones stay as they are.
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
    use graph::{Value, ValueType};
    use tensor::Tensor;

    #[test]
    fn traces_go_and_what_computes_stays() {
        // Field 9 (metadata_props, here `{key: "a"}`), and field 11, which is none of ours.
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
}
