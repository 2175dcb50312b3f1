//! Names for values that come into another scope, or into being.
use graph::Values;
use std::collections::HashMap;

/// How many values have each name.
pub(super) struct Names(HashMap<String, usize>);

impl Names {
    /// Of all values of a model, those of subgraphs too.
    pub(super) fn of(values: &Values) -> Names {
        let mut names = HashMap::new();
        for (_, v) in values.iter() {
            *names.entry(v.name.clone()).or_insert(0) += 1;
        }
        Names(names)
    }

    /// The name itself if one value alone has it, else a new one like it. For a value that has the name already.
    pub(super) fn apart(&mut self, name: &str) -> String {
        match self.0.get(name) {
            Some(n) if *n > 1 => self.fresh(name),
            _ => name.to_string(),
        }
    }

    /// A name that no value has: `base`, or `base_1`, `base_2`, ...
    pub(super) fn fresh(&mut self, base: &str) -> String {
        let numbered = (1..).map(|i| format!("{base}_{i}"));
        let name = std::iter::once(base.to_string()).chain(numbered).find(|n| !self.0.contains_key(n)).unwrap_or_default();
        self.0.insert(name.clone(), 1);
        name
    }

    /// Forgets a name whose only value is gone.
    pub(super) fn release(&mut self, name: &str) {
        if self.0.get(name) == Some(&1) {
            self.0.remove(name);
        }
    }
}
