//! The task as a record.
use report::record::{Better, MetricRecord, TaskRecord};
use technique::Choice;
use train::{MetricFacts, Task, Tasks};

/// The task and its metrics, the main one first.
pub fn task_record(task: &Choice<Tasks>) -> TaskRecord {
    let metrics = task.metrics().into_iter().map(metric).collect();
    TaskRecord { kind: task.kind().to_string(), metrics }
}

/// The main metric of a task.
pub fn metric_record(task: &dyn Task) -> MetricRecord {
    metric(task.main_metric())
}

fn metric(facts: &MetricFacts) -> MetricRecord {
    let better = match facts.better {
        train::Better::Higher => Better::Higher,
        train::Better::Lower => Better::Lower,
    };
    MetricRecord { key: facts.key.into(), label: facts.label.into(), better, percent: facts.percent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_without_a_task_is_about_the_default_one() {
        assert_eq!(task_record(&Choice::default()), TaskRecord::default());
    }
}
