//! Summary of a run's rounds: best, median and memory of either side of each row.
use serde_json::Value;

/// One side of one row.
pub(super) struct Side {
    pub(super) variant: String,
    pub(super) best: f64,
    pub(super) median: f64,
    /// The largest of the rounds.
    pub(super) memory: Option<f64>,
}

/// Sums up the measured rounds (the first pass that chose a variant is round 0 and does not count).
pub(super) fn side(run: &Value, workload: &str, side: &str) -> Option<Side> {
    let entries: Vec<&Value> = measurements(run)
        .filter(|m| m["workload"] == workload && m["side"] == side && m["round"].as_u64().is_some_and(|r| r > 0))
        .collect();
    let numbers = |key: &str| entries.iter().filter_map(|m| m[key].as_f64()).collect::<Vec<f64>>();
    let memory = entries.iter().filter_map(|m| m["figures"]["peak_memory_bytes"].as_f64()).reduce(f64::max);
    Some(Side {
        variant: entries.first()?["variant"].as_str().unwrap_or_default().to_string(),
        best: numbers("best").into_iter().reduce(f64::min)?,
        median: median(numbers("median"))?,
        memory,
    })
}

/// Rounds of a row that were measured.
pub(super) fn rounds(run: &Value, workload: &str) -> usize {
    measurements(run).filter(|m| m["workload"] == workload && m["side"] == "ours").count()
}

/// Our last measurement of a row, as the program printed it.
pub(super) fn last_figures<'r>(run: &'r Value, workload: &str) -> Option<&'r Value> {
    measurements(run).filter(|m| m["workload"] == workload && m["side"] == "ours").last().map(|m| &m["figures"])
}

fn measurements(run: &Value) -> impl Iterator<Item = &Value> {
    run["measurements"].as_array().into_iter().flatten()
}

/// The median of a list; of an even number of values the mean of the two in the middle.
fn median(mut list: Vec<f64>) -> Option<f64> {
    list.sort_by(f64::total_cmp);
    let middle = list.len() / 2;
    let upper = *list.get(middle)?;
    if list.len() % 2 == 1 { Some(upper) } else { Some((list.get(middle.checked_sub(1)?)? + upper) / 2.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_choosing_pass_does_not_count() {
        let entry = |round: u32, best: f64| {
            json!({ "workload": "w", "side": "peer", "variant": "v", "round": round, "best": best,
            "median": best + 1.0, "figures": { "peak_memory_bytes": best * 10.0 } })
        };
        let run = json!({ "measurements": [entry(0, 1.0), entry(1, 4.0), entry(2, 2.0)] });
        let side = side(&run, "w", "peer").unwrap();
        assert_eq!((side.best, side.median, side.memory), (2.0, 4.0, Some(40.0)));
        assert!(super::side(&run, "w", "ours").is_none());
    }
}
