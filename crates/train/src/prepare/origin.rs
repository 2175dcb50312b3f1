//! Origins of folded constants: two that were computed in the same way from the same weights are one weight.
use graph::{Node, ValueId, Values};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use tensor::Tensor;

/// Identifies a computation on constants.
pub(super) type Key = u64;

/// The computations behind constants.
#[derive(Debug, Default)]
pub(super) struct Origins {
    keys: HashMap<ValueId, Key>,
    /// Constants of the file behind a folded one, in order.
    roots: HashMap<ValueId, Vec<ValueId>>,
    /// Results of nodes other than Identity, whose names the exporter generated.
    made: Vec<ValueId>,
}

impl Origins {
    /// Records that `node`, which reads only constants, computes the constant `v`.
    pub(super) fn computed(&mut self, values: &Values, node: &Node, v: ValueId) {
        let inputs: Vec<Option<Key>> = node.inputs.iter().map(|i| i.map(|i| self.key(values, i))).collect();
        let key = match (node.op_type.as_str(), inputs.as_slice()) {
            ("Identity", [Some(of)]) => *of,
            _ => {
                let mut hash = DefaultHasher::new();
                let at = node.outputs.iter().position(|o| *o == Some(v));
                (&node.domain, &node.op_type, format!("{:?}", node.attributes), inputs, at).hash(&mut hash);
                self.made.push(v);
                hash.finish()
            }
        };
        let mut roots = vec![];
        for root in node.inputs.iter().flatten().flat_map(|i| self.roots(*i)) {
            if !roots.contains(&root) {
                roots.push(root);
            }
        }
        self.keys.insert(v, key);
        self.roots.insert(v, roots);
    }

    /// The computation behind a constant; a constant of the file stands for itself, shapes and single numbers for their elements.
    pub(super) fn key(&self, values: &Values, v: ValueId) -> Key {
        if let Some(key) = self.keys.get(&v) {
            return *key;
        }
        let mut hash = DefaultHasher::new();
        match values.tensor(v).filter(|t| t.len() <= if t.dtype().is_float() { 1 } else { 1024 }) {
            Some(t) => match (t.to_i64_vec(), t.to_f64_vec()) {
                (Ok(list), _) if !t.dtype().is_float() => (t.dtype(), t.shape(), list).hash(&mut hash),
                (_, Ok(list)) => (t.dtype(), t.shape(), list.iter().map(|v| v.to_bits()).collect::<Vec<_>>()).hash(&mut hash),
                _ => v.hash(&mut hash),
            },
            None => v.hash(&mut hash),
        }
        hash.finish()
    }

    /// Constants of the file that a constant was computed from; itself if it was not.
    pub(super) fn roots(&self, v: ValueId) -> Vec<ValueId> {
        self.roots.get(&v).cloned().unwrap_or_else(|| vec![v])
    }

    /// Constants computed by a node other than Identity, in the order in which they were folded.
    pub(super) fn made(&self) -> &[ValueId] {
        &self.made
    }
}

/// True if all elements are equal, as in initial biases and normalizations, where equality of tensors means nothing.
pub(super) fn is_uniform(t: &Tensor) -> bool {
    if let Ok(values) = t.as_slice::<f32>() {
        return values.first().is_none_or(|first| values.iter().all(|v| v == first));
    }
    t.to_f64_vec().is_ok_and(|values| values.first().is_none_or(|first| values.iter().all(|v| v == first)))
}
