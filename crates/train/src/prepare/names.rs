//! Names for values that are new, or move to another scope.
use graph::Values;
use std::collections::HashMap;

/// The names in use, with the number of values for each.
pub(super) struct Names {
    taken: graph::Names,
    counts: HashMap<String, usize>,
}

impl Names {
    /// Of all values of a model, also in subgraphs.
    pub(super) fn of(values: &Values) -> Names {
        let mut counts = HashMap::new();
        for (_, v) in values.iter() {
            *counts.entry(v.name.clone()).or_insert(0) += 1;
        }
        Names { taken: graph::Names::of(values), counts }
    }

    /// The name itself if it is unique, else a new one derived from it. For a value that has the name already.
    pub(super) fn apart(&mut self, name: &str) -> String {
        match self.counts.get(name) {
            Some(n) if *n > 1 => self.fresh(name),
            _ => name.to_string(),
        }
    }

    /// A name not in use: `base`, or `base_1`, `base_2`, ...
    pub(super) fn fresh(&mut self, base: &str) -> String {
        let name = self.taken.fresh(base);
        self.counts.insert(name.clone(), 1);
        name
    }

    /// Removes a name whose only value was removed.
    pub(super) fn release(&mut self, name: &str) {
        if self.counts.get(name) == Some(&1) {
            self.counts.remove(name);
            self.taken.release(name);
        }
    }
}
