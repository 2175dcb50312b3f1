//! Annotations in a file: one metadata entry, and one extra initializer for each tensor they hold.
//!
//! `espalier.annotations` is JSON: `{"version":1,"values":{NAME:{"mask":true,"encoding":{"kind":..,"settings":{..},
//! "parameters":[..]}}}}`. The tensors are initializers that no node reads: `espalier/NAME/mask` (bits packed into uint8,
//! the first element in the lowest bit) and `espalier/NAME/PARAMETER`. A runtime that knows nothing of them runs the model.
use crate::error::{OnnxError, Result};
use graph::{Annotation, Encoding, Graph, Model, Setting, ValueId, Values};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use tensor::Tensor;

const KEY: &str = "espalier.annotations";
const PREFIX: &str = "espalier/";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Table {
    version: u32,
    values: BTreeMap<String, StoredAnnotation>,
}

#[derive(Serialize, Deserialize)]
struct StoredAnnotation {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    mask: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encoding: Option<StoredEncoding>,
}

#[derive(Serialize, Deserialize)]
struct StoredEncoding {
    kind: String,
    settings: BTreeMap<String, Setting>,
    parameters: Vec<String>,
}

fn wrong(what: impl Into<String>) -> OnnxError {
    OnnxError::Format { place: format!("metadata '{KEY}'"), what: what.into() }
}

/// The model with its annotations as metadata and initializers; unchanged if it has none. If a value of a subgraph shares its
/// name with another and one of the two is annotated, it gets a new name. Annotations of values that the graph no longer has are
/// dropped.
pub(crate) fn store(model: &Model) -> Result<Model> {
    let mut m = model.clone();
    if model.annotations.is_empty() {
        return Ok(m);
    }
    let mut table = Table { version: VERSION, values: BTreeMap::new() };
    let live = tell_apart(&mut m);
    for (id, a) in model.annotations.iter().filter(|(id, _)| live.contains(id)) {
        let name = m.value(id)?.name.clone();
        let settings = a.encoding.iter().flat_map(|e| &e.settings);
        if let Some((setting, _)) = settings.into_iter().find(|(_, s)| matches!(s, Setting::Float(v) if !v.is_finite())) {
            return Err(wrong(format!("setting '{setting}' of '{name}' is not a finite number")));
        }
        let mut add = |part: &str, t: Tensor| {
            let v = m.values.add_constant(format!("{PREFIX}{name}/{part}"), t);
            m.graph.constants.push(v);
        };
        if let Some(mask) = &a.mask {
            let live = mask.as_slice::<bool>().map_err(|e| wrong(e.to_string()))?;
            let bits = live.chunks(8).map(|c| c.iter().enumerate().map(|(i, b)| u8::from(*b) << i).sum::<u8>()).collect::<Vec<u8>>();
            add("mask", Tensor::vector(bits));
        }
        if let Some(e) = &a.encoding {
            e.parameters.iter().for_each(|(p, t)| add(p, t.clone()));
        }
        let encoding = a.encoding.as_ref().map(|e| StoredEncoding {
            kind: e.kind.clone(),
            settings: e.settings.clone(),
            parameters: e.parameters.keys().cloned().collect(),
        });
        table.values.insert(name.clone(), StoredAnnotation { mask: a.mask.is_some(), encoding });
    }
    m.metadata_set(KEY, serde_json::to_string(&table).map_err(|e| wrong(e.to_string()))?);
    Ok(m)
}

/// Turns metadata and initializers back into annotations.
pub(crate) fn restore(model: &mut Model) -> Result<()> {
    let Some(text) = model.metadata_get(KEY) else { return Ok(()) };
    let table: Table = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    if table.version != VERSION {
        return Err(wrong(format!("is of version {}, this release reads {VERSION}", table.version)));
    }
    let named = |(name, e): (&String, &StoredAnnotation)| {
        let parameters = e.encoding.iter().flat_map(|k| &k.parameters).map(|p| format!("{name}/{p}"));
        parameters.chain(e.mask.then(|| format!("{name}/mask"))).collect::<Vec<_>>()
    };
    let wanted: HashSet<String> = table.values.iter().flat_map(named).collect();
    let mut parts: HashMap<String, Tensor> = HashMap::new();
    let values = &model.values;
    model.graph.constants.retain(|v| {
        let value = &values[*v];
        let part = value.name.strip_prefix(PREFIX).filter(|p| wanted.contains(*p));
        let (Some(part), Some(c)) = (part, &value.constant) else { return true };
        parts.insert(part.to_string(), c.tensor.clone());
        false
    });
    model.metadata.retain(|(k, _)| k != KEY);
    let ids = by_name(&model.values);
    let mut restored = vec![];
    for (name, entry) in table.values {
        let id = *ids.get(name.as_str()).ok_or_else(|| wrong(format!("names '{name}', which the graph does not have")))?;
        let mut take = |part: &str| {
            parts.remove(&format!("{name}/{part}")).ok_or_else(|| wrong(format!("the tensor '{PREFIX}{name}/{part}' is missing")))
        };
        let mut a = Annotation::default();
        if entry.mask {
            let bits = take("mask")?;
            let bits = bits.as_slice::<u8>().map_err(|e| wrong(e.to_string()))?;
            let shape = model
                .values
                .tensor(id)
                .map(|t| t.shape().to_vec())
                .ok_or_else(|| wrong(format!("masks '{name}', which is not a constant")))?;
            let count = shape.iter().product::<usize>();
            if bits.len() != count.div_ceil(8) {
                return Err(wrong(format!("the mask of '{name}' has {} bytes for {count} elements", bits.len())));
            }
            let live = (0..count).map(|i| bits[i / 8] >> (i % 8) & 1 == 1).collect();
            a.mask = Some(Tensor::new::<bool>(live, shape).map_err(|e| wrong(e.to_string()))?);
        }
        if let Some(kind) = entry.encoding {
            let parameters = kind.parameters.into_iter().map(|p| take(&p).map(|t| (p, t))).collect::<Result<_>>()?;
            a.encoding = Some(Encoding { kind: kind.kind, settings: kind.settings, parameters });
        }
        restored.push((id, a));
    }
    for (id, a) in restored {
        *model.annotations.entry(id) = a;
    }
    Ok(())
}

/// Gives each annotated value a unique name, by which it is found when it is read back. Names of the main graph stay. Returns the
/// values of all graphs.
fn tell_apart(m: &mut Model) -> HashSet<ValueId> {
    let (mut main, mut inner) = (vec![], vec![]);
    own_values(&m.graph, &mut main);
    m.graph.visit(&mut |node| node.subgraphs().for_each(|g| own_values(g, &mut inner)));
    let mut named: HashMap<String, Vec<ValueId>> = HashMap::new();
    for id in &inner {
        named.entry(m.values[*id].name.clone()).or_default().push(*id);
    }
    let outer: HashSet<&str> = main.iter().map(|id| m.values[*id].name.as_str()).collect();
    let annotated = |id: &ValueId| m.annotations.get(*id).is_some_and(|a| !a.is_empty());
    let at_main: HashSet<&str> = main.iter().filter(|id| annotated(id)).map(|id| m.values[*id].name.as_str()).collect();
    let clash = |id: &&ValueId| {
        let name = m.values[**id].name.as_str();
        let others = outer.contains(name) || named.get(name).is_some_and(|list| list.len() > 1);
        at_main.contains(name) || annotated(id) && others
    };
    let renamed: Vec<ValueId> = inner.iter().filter(clash).copied().collect();
    for id in renamed {
        let name = m.fresh_name(&m.values[id].name);
        m.values[id].name = name;
    }
    main.into_iter().chain(inner).collect()
}

/// Values of a graph itself: inputs, constants, outputs of its nodes.
fn own_values(graph: &Graph, into: &mut Vec<ValueId>) {
    into.extend(graph.inputs.iter().chain(graph.constants.iter().filter(|v| !graph.inputs.contains(v))));
    into.extend(graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten()));
}

/// Ids by name, the first of a name winning: the main graph's values come before those of subgraphs.
fn by_name(values: &Values) -> HashMap<&str, ValueId> {
    let mut ids = HashMap::new();
    for (id, v) in values.iter() {
        ids.entry(v.name.as_str()).or_insert(id);
    }
    ids
}
