//! Comparing what was measured with what was asked for.
use crate::recipe::Goals;
use crate::stages::distill::TEACHER_ACCURACY;
use report::record::{GoalRecord, Metrics, RunRecord, StageRecord};
use report::text;

/// The verdict on each goal. A drop is counted from the model file that the run begins with, or from the first stage with
/// a measured accuracy; what counts in the end is the last deployed file as its runtime computes by default, or the last
/// stage where nothing was deployed.
pub fn judge(goals: &Goals, record: &RunRecord) -> Vec<GoalRecord> {
    let last = record.stages.iter().rev().find(|s| s.deploy.is_some()).or(record.stages.last());
    let accuracy = last.and_then(StageRecord::shown_accuracy);
    let first = last.and_then(|last| baseline(record, last));
    let size = last.map(|s| &s.metrics).and_then(|m: &Metrics| m.file_bytes);
    let latency = last.and_then(|s| s.deploy.as_ref()?.runtimes.iter().find_map(|r| Some(r.latency.as_ref()?.p50_ms)));
    let points = |share: f64| share * 100.0;
    let mut out = vec![];
    if let Some(wanted) = goals.max_accuracy_drop {
        let drop = first.zip(accuracy).map(|(a, b)| points(a - b));
        let say = |d: f64| {
            let moved = if d < 0.0 { format!("{:.2} points were gained", -d) } else { format!("{d:.2} points were lost") };
            format!("accuracy: {moved}, {wanted} may be")
        };
        let mut told = verdict("max_accuracy_drop", wanted, drop, |d| d <= wanted + 1e-9, say);
        if let (None, Some(_), Some(n)) = (drop, accuracy, last.and_then(StageRecord::chosen_images)) {
            told.sentence =
                format!("accuracy: undecided: the file was scored on {n} of the test images, what it is compared with on others");
        }
        out.push(told);
    }
    if let Some(wanted) = goals.min_accuracy {
        let say = |a: f64| format!("accuracy: {a:.2} %, at least {wanted} % is wanted");
        out.push(verdict("min_accuracy", wanted, accuracy.map(points), |a| a >= wanted - 1e-9, say));
    }
    if let Some(wanted) = goals.max_file_size {
        let say = |b: f64| format!("size: {}, at most {wanted} is wanted", text::bytes(b as u64));
        out.push(verdict("max_file_size", wanted.0 as f64, size.map(|b| b as f64), |b| b <= wanted.0 as f64, say));
    }
    if let Some(wanted) = goals.max_latency_ms {
        let say = |ms: f64| format!("latency: {ms:.2} ms, at most {wanted} ms is wanted");
        out.push(verdict("max_latency_ms", wanted, latency, |ms| ms <= wanted, say));
    }
    out
}

/// The accuracy that losses are counted from: that of the first measured model; of a teacher from outside the run where
/// that model is its student, or knows less than half of what the teacher knows (a student that is not trained yet).
/// `None` where it is over other images than the accuracy of `last`.
fn baseline(record: &RunRecord, last: &StageRecord) -> Option<f64> {
    let (begun, first) = record.measured().find_map(|s| Some((s, s.shown_accuracy()?)))?;
    let taught = |s: &StageRecord| s.metrics.other.get(TEACHER_ACCURACY).copied();
    let teacher = record.measured().find_map(taught);
    let student = taught(begun).is_some();
    match teacher.filter(|t| student || first < t / 2.0) {
        Some(teacher) => Some(teacher).filter(|_| last.chosen_images().is_none()),
        None => begun.accuracy_beside(last),
    }
}

fn verdict(goal: &str, wanted: f64, measured: Option<f64>, met: impl Fn(f64) -> bool, say: impl Fn(f64) -> String) -> GoalRecord {
    GoalRecord {
        goal: goal.to_string(),
        wanted,
        measured,
        met: measured.is_some_and(met),
        sentence: measured.map_or_else(|| format!("{goal}: nothing was measured that could tell"), say),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::ByteSize;
    use report::record::{Arithmetic, DeployRecord, OriginalRecord, RuntimeRecord};

    fn stage(kind: &str, accuracy: f64, bytes: u64) -> StageRecord {
        let metrics = Metrics { accuracy: Some(accuracy), file_bytes: Some(bytes), ..Metrics::default() };
        StageRecord { name: kind.into(), kind: kind.into(), metrics, ..StageRecord::default() }
    }

    #[test]
    fn verdicts_are_plain_sentences() {
        let stages = vec![stage("train", 0.99, 1_000_000), stage("deploy", 0.975, 90_000)];
        let mut record = RunRecord { stages, ..RunRecord::default() };
        let goals =
            Goals { max_accuracy_drop: Some(1.0), max_file_size: Some(ByteSize(100_000)), max_latency_ms: Some(2.0), ..Goals::default() };
        let verdicts = judge(&goals, &record);
        let told: Vec<(bool, &str)> = verdicts.iter().map(|v| (v.met, v.sentence.as_str())).collect();
        assert_eq!(
            told,
            [
                (false, "accuracy: 1.50 points were lost, 1 may be"),
                (true, "size: 90.0 kB, at most 100 kB is wanted"),
                (false, "max_latency_ms: nothing was measured that could tell"),
            ]
        );
        // The file is judged as it ships, not by its literal arithmetic.
        let runtime = |arithmetic, accuracy| RuntimeRecord { arithmetic, accuracy: Some(accuracy), ..RuntimeRecord::default() };
        record.stages[1].deploy = Some(DeployRecord {
            runtimes: vec![runtime(Arithmetic::Literal, 0.985), runtime(Arithmetic::Default, 0.96)],
            ..DeployRecord::default()
        });
        assert_eq!(judge(&goals, &record)[0].sentence, "accuracy: 3.00 points were lost, 1 may be");
        record.stages[1].deploy = None;
        record.stages[0].metrics.other.insert(TEACHER_ACCURACY.into(), 0.985);
        assert_eq!(judge(&goals, &record)[0].sentence, "accuracy: 1.00 points were lost, 1 may be");
        record.start = Some(stage("start", 0.1, 1_000_000));
        assert_eq!(judge(&goals, &record)[0].sentence, "accuracy: 1.00 points were lost, 1 may be");
        record.start = Some(stage("start", 0.98, 1_000_000));
        assert_eq!(judge(&goals, &record)[0].sentence, "accuracy: 0.50 points were lost, 1 may be");
    }

    #[test]
    fn a_file_on_chosen_images_is_judged_by_the_start_on_the_same_or_not_at_all() {
        let goals = Goals { max_accuracy_drop: Some(1.0), ..Goals::default() };
        let original = OriginalRecord { stage: "start".into(), accuracy: Some(0.8), ..OriginalRecord::default() };
        let mut deployed = stage("deploy", 0.6, 1);
        deployed.deploy = Some(DeployRecord { chosen_images: Some(5), original: Some(original), ..DeployRecord::default() });
        let mut record = RunRecord { start: Some(stage("start", 0.5, 1)), stages: vec![deployed], ..RunRecord::default() };
        assert_eq!(judge(&goals, &record)[0].sentence, "accuracy: 20.00 points were lost, 1 may be");
        record.stages.insert(0, stage("distill", 0.5, 1));
        record.stages[0].metrics.other.insert(TEACHER_ACCURACY.into(), 0.9);
        record.start = Some(stage("start", 0.1, 1));
        let undecided = judge(&goals, &record).remove(0);
        assert_eq!((undecided.measured, undecided.met), (None, false), "the teacher was scored on all images");
        assert!(undecided.sentence.starts_with("accuracy: undecided: the file was scored on 5 of the test images"));
        record.start = None;
        record.stages[0] = stage("train", 0.5, 1);
        assert_eq!(judge(&goals, &record)[0].measured, None, "another stage than the one that stands beside the file");
        record.stages[1].deploy.as_mut().unwrap().chosen_images = None;
        assert_eq!(judge(&goals, &record)[0].sentence, "accuracy: 10.00 points were gained, 1 may be");
    }
}
