//! Indices that are removed together, as sets that are joined.
use graph::ValueId;
use std::collections::HashMap;

/// Why an index stays: a number that the caller knows the text of.
pub(super) type Reason = u32;

/// A forest of joined indices (union by size with path halving). An index is one of an axis of a value.
#[derive(Default)]
pub(super) struct Ties {
    /// First index of each axis, and its size.
    axes: HashMap<(ValueId, usize), (u32, usize)>,
    /// The axes, in the order in which they were met.
    order: Vec<(ValueId, usize)>,
    parent: Vec<u32>,
    size: Vec<u32>,
    /// For the root of a set: why its indices stay.
    held: Vec<Option<Reason>>,
}

impl Ties {
    /// The first of an axis' indices; the axis is added if it is new.
    pub(super) fn axis(&mut self, value: ValueId, axis: usize, size: usize) -> u32 {
        if let Some((first, _)) = self.axes.get(&(value, axis)) {
            return *first;
        }
        let first = self.parent.len() as u32;
        self.parent.extend(first..first + size as u32);
        self.size.resize(self.parent.len(), 1);
        self.held.resize(self.parent.len(), None);
        self.axes.insert((value, axis), (first, size));
        self.order.push((value, axis));
        first
    }

    /// The representative of an index' set.
    pub(super) fn root(&mut self, mut at: u32) -> u32 {
        while self.parent[at as usize] != at {
            let up = self.parent[self.parent[at as usize] as usize];
            self.parent[at as usize] = up;
            at = up;
        }
        at
    }

    pub(super) fn join(&mut self, a: u32, b: u32) {
        let (mut a, mut b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        if self.size[a as usize] < self.size[b as usize] {
            (a, b) = (b, a);
        }
        self.parent[b as usize] = a;
        self.size[a as usize] += self.size[b as usize];
        self.held[a as usize] = self.held[a as usize].or(self.held[b as usize]);
    }

    /// All indices of an axis stay, for a reason; the first reason counts.
    pub(super) fn hold(&mut self, value: ValueId, axis: usize, size: usize, reason: Reason) {
        let first = self.axis(value, axis, size);
        for at in first..first + size as u32 {
            let root = self.root(at) as usize;
            self.held[root] = self.held[root].or(Some(reason));
        }
    }

    /// Why an index stays, if it does.
    pub(super) fn held(&mut self, at: u32) -> Option<Reason> {
        let root = self.root(at);
        self.held[root as usize]
    }

    /// Why the first index of an axis stays, if all its indices do.
    pub(super) fn all_held(&mut self, value: ValueId, axis: usize) -> Option<Reason> {
        let (first, size) = *self.axes.get(&(value, axis))?;
        let mut reason = None;
        for at in first..first + size as u32 {
            reason = reason.or(Some(self.held(at)?));
        }
        reason
    }

    /// The axes with the first of their indices and their sizes, in the order in which they were met.
    pub(super) fn axes(&self) -> Vec<((ValueId, usize), u32, usize)> {
        self.order.iter().map(|key| (*key, self.axes[key].0, self.axes[key].1)).collect()
    }
}
