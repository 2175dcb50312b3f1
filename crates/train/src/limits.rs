//! Limits on a run from outside: on loops, and a user's request to stop.
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The error message of loops that [`Limits`] ended.
pub const LOOPS_ENDED: &str = "its loops were ended";

/// Limits of one run, for graphs that may not end. They are checked before each run of a subgraph.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Most runs of subgraphs: iterations of Loop and Scan, branches of If.
    pub iterations: Option<u64>,
    /// Most nodes that are run in subgraphs.
    pub nodes: Option<u64>,
    /// Deadline of the run.
    pub deadline: Option<Instant>,
}

impl Limits {
    /// The limit that is exceeded after so many runs of subgraphs with so many nodes, if any.
    pub(crate) fn exceeded(&self, iterations: u64, nodes: u64) -> Option<String> {
        match (self.iterations, self.nodes, self.deadline) {
            (Some(most), _, _) if iterations > most => Some(format!("{LOOPS_ENDED} after {most} iterations")),
            (_, Some(most), _) if nodes > most => Some(format!("{LOOPS_ENDED} after {most} nodes")),
            (_, _, Some(end)) if Instant::now() > end => Some(format!("{LOOPS_ENDED} at the deadline")),
            _ => None,
        }
    }
}

thread_local! {
    static STOP: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Ends loops of graphs on this thread once `flag` is set, while the returned guard lives: a Loop may not end otherwise.
pub fn stop_when(flag: Arc<AtomicBool>) -> StopGuard {
    StopGuard(STOP.replace(Some(flag)))
}

/// While it lives, loops check a flag ([`stop_when`]).
pub struct StopGuard(Option<Arc<AtomicBool>>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        STOP.replace(self.0.take());
    }
}

/// True if the flag of [`stop_when`] is set. Long computations check it now and then, and end with
/// [`crate::TrainError::Interrupted`].
pub fn stopped() -> bool {
    STOP.with_borrow(|flag| flag.as_ref().is_some_and(|f| f.load(Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Executor, Mode, Named};
    use graph::{AttributeValue, Graph, Model, Node};
    use std::time::Duration;
    use tensor::Tensor;

    /// A Loop that never ends, with a body of no nodes.
    fn endless() -> Model {
        let mut m = Model::new(17);
        let (i, go, x, y) = (m.values.add_named("i"), m.values.add_named("go"), m.values.add_named("x"), m.values.add_named("y"));
        let state = m.values.add_named("state");
        let body = Graph { inputs: vec![i, go, state], outputs: vec![go, state], ..Graph::default() };
        let mut node = Node::new("Loop", "endless", &[], &[y]).with("body", AttributeValue::Graph(Box::new(body)));
        node.inputs = vec![None, None, Some(x)];
        m.graph.inputs.push(x);
        m.graph.nodes.push(node);
        m.graph.outputs.push(y);
        m
    }

    fn run(limits: Limits) -> String {
        let m = endless();
        let inputs = Named::from([("x".to_string(), Tensor::scalar(1f32))]);
        Executor::new(&m).unwrap().within(limits).run(&inputs, Mode::FLOAT).unwrap_err().to_string()
    }

    #[test]
    fn each_bound_ends_a_loop() {
        for (limits, said) in [
            (Limits { iterations: Some(10), ..Limits::default() }, "after 10 iterations"),
            (Limits { deadline: Some(Instant::now() + Duration::from_millis(20)), ..Limits::default() }, "at the deadline"),
        ] {
            let told = run(limits);
            assert!(told.contains("node 'endless'") && told.contains(said), "{told}");
        }
        assert!(Limits { nodes: Some(5), ..Limits::default() }.exceeded(1, 6).is_some_and(|s| s.contains("5 nodes")));
    }

    #[test]
    fn asking_to_stop_ends_a_loop() {
        let flag = Arc::new(AtomicBool::new(false));
        let asked = flag.clone();
        let guard = stop_when(flag);
        let asking = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            asked.store(true, Ordering::Relaxed);
        });
        assert!(run(Limits::default()).contains("stopped"));
        asking.join().unwrap();
        drop(guard);
        assert!(!stopped());
    }
}
