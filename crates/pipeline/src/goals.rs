//! Comparison of the measured figures with the recipe's goals.
use crate::recipe::{Goals, MetricGoal};
use crate::stages::distill::teacher_figure;
use report::record::{Better, GoalRecord, MetricRecord, Metrics, RunRecord, StageRecord};
use report::text;

/// The verdict on each goal. A change is relative to the model file that the run begins with, or to the first stage with a
/// measured metric. The final value is that of the last deployed file in default arithmetic, or of the last stage if nothing was
/// deployed.
pub fn judge(goals: &Goals, record: &RunRecord) -> Vec<GoalRecord> {
    let last = record.deployed().map(|(stage, _)| stage).or(record.stages.last());
    let size = last.map(|s| &s.metrics).and_then(|m: &Metrics| m.file_bytes);
    let latency = last.and_then(|s| s.deploy.as_ref()?.runtimes.iter().find_map(|r| Some(r.latency.as_ref()?.p50_ms)));
    let mut out = vec![];
    if goals.max_accuracy_drop.is_some() || goals.min_accuracy.is_some() {
        let goal = MetricGoal { max_drop: goals.max_accuracy_drop, min: goals.min_accuracy, ..MetricGoal::default() };
        let names = ["max_accuracy_drop", "", "min_accuracy", ""].map(String::from);
        figure(&MetricRecord::accuracy(), &goal, &names, record, last, &mut out);
    }
    for (key, goal) in &goals.metrics {
        let Some(metric) = record.task.metrics.iter().find(|m| m.key == *key) else { continue };
        let names = ["max_drop", "max_rise", "min", "max"].map(|what| format!("metrics.{key}.{what}"));
        figure(metric, goal, &names, record, last, &mut out);
    }
    if let Some(wanted) = goals.max_file_size {
        let say = |b: f64| format!("size: {}; the goal allows {wanted}", text::bytes(b as u64));
        out.push(verdict("max_file_size", wanted.0 as f64, size.map(|b| b as f64), |b| b <= wanted.0 as f64, say));
    }
    if let Some(wanted) = goals.max_latency_ms {
        let say = |ms: f64| format!("latency: {ms:.2} ms; the goal allows {wanted} ms");
        out.push(verdict("max_latency_ms", wanted, latency, |ms| ms <= wanted, say));
    }
    out
}

/// The verdicts on one metric; `names` are those of the goals `max_drop`, `max_rise`, `min` and `max`.
fn figure(
    metric: &MetricRecord,
    goal: &MetricGoal,
    names: &[String; 4],
    record: &RunRecord,
    last: Option<&StageRecord>,
    out: &mut Vec<GoalRecord>,
) {
    // Shares are in percent, in goals too.
    let scale = if metric.percent { 100.0 } else { 1.0 };
    let now = last.and_then(|s| s.shown(metric));
    let first = last.and_then(|last| baseline(metric, record, last));
    let label = &metric.label;
    let amount = |v: f64| if metric.percent { format!("{v:.2} points") } else { text::number(v) };
    let [drop, rise, least, most] = names;
    for (name, wanted, sign) in [(drop, goal.max_drop, -1.0), (rise, goal.max_rise, 1.0)] {
        let Some(wanted) = wanted else { continue };
        let moved = first.zip(now).map(|(from, to)| sign * scale * (to - from));
        let say = |by: f64| {
            let way = if (by < 0.0) == (sign < 0.0) { "rose" } else { "fell" };
            // A change the other way is no use of what the goal allows.
            let allowed = match by < 0.0 {
                true if sign < 0.0 => format!("a fall of {wanted}"),
                true => format!("a rise of {wanted}"),
                false => wanted.to_string(),
            };
            format!("{label} {way} by {}; the goal allows {allowed}", amount(by.abs()))
        };
        let mut told = verdict(name, wanted, moved, |by| by <= wanted + 1e-9, say);
        if let (None, Some(_), Some(n)) = (moved, now, last.and_then(StageRecord::chosen_images)) {
            told.sentence =
                format!("{label}: undecided: the file was scored on {n} of the test samples, the model it is compared with on others");
        }
        out.push(told);
    }
    let write = |v: f64| if metric.percent { format!("{v:.2} %") } else { text::number(v) };
    let unit = if metric.percent { " %" } else { "" };
    if let Some(wanted) = goal.min {
        let say = |v: f64| format!("{label}: {}; the goal is at least {wanted}{unit}", write(v));
        out.push(verdict(least, wanted, now.map(|v| v * scale), |v| v >= wanted - 1e-9, say));
    }
    if let Some(wanted) = goal.max {
        let say = |v: f64| format!("{label}: {}; the goal allows {wanted}{unit}", write(v));
        out.push(verdict(most, wanted, now.map(|v| v * scale), |v| v <= wanted + 1e-9, say));
    }
}

/// The metric that changes are relative to: that of the first measured model; that of a teacher from outside the run if that
/// model is its student, or has less than half of the teacher's score (a student that is not trained yet). `None` if it was
/// measured on other samples than `last`.
fn baseline(metric: &MetricRecord, record: &RunRecord, last: &StageRecord) -> Option<f64> {
    let (begun, first) = record.measured().find_map(|s| Some((s, s.shown(metric)?)))?;
    let taught = |s: &StageRecord| s.metrics.other.get(&teacher_figure(&metric.key)).copied();
    let teacher = record.measured().find_map(taught);
    let student = taught(begun).is_some();
    let untrained = |teacher: f64| match metric.better {
        Better::Higher => first < teacher / 2.0,
        Better::Lower => first > teacher * 2.0,
    };
    match teacher.filter(|t| student || untrained(*t)) {
        Some(teacher) => Some(teacher).filter(|_| last.chosen_images().is_none()),
        None => begun.shown_beside(metric, last),
    }
}

fn verdict(goal: &str, wanted: f64, measured: Option<f64>, met: impl Fn(f64) -> bool, say: impl Fn(f64) -> String) -> GoalRecord {
    GoalRecord {
        goal: goal.to_string(),
        wanted,
        measured,
        met: measured.is_some_and(met),
        sentence: measured.map_or_else(|| format!("{goal}: not measured"), say),
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
                (false, "accuracy fell by 1.50 points; the goal allows 1"),
                (true, "size: 90.0 kB; the goal allows 100 kB"),
                (false, "max_latency_ms: not measured"),
            ]
        );
        // The file counts in default arithmetic, as it ships.
        let runtime = |arithmetic, accuracy| RuntimeRecord { arithmetic, accuracy: Some(accuracy), ..RuntimeRecord::default() };
        record.stages[1].deploy = Some(DeployRecord {
            runtimes: vec![runtime(Arithmetic::Literal, 0.985), runtime(Arithmetic::Default, 0.96)],
            ..DeployRecord::default()
        });
        assert_eq!(judge(&goals, &record)[0].sentence, "accuracy fell by 3.00 points; the goal allows 1");
        record.stages[1].deploy = None;
        record.stages[0].metrics.other.insert(teacher_figure("accuracy"), 0.985);
        assert_eq!(judge(&goals, &record)[0].sentence, "accuracy fell by 1.00 points; the goal allows 1");
        record.start = Some(stage("start", 0.1, 1_000_000));
        assert_eq!(judge(&goals, &record)[0].sentence, "accuracy fell by 1.00 points; the goal allows 1");
        record.start = Some(stage("start", 0.98, 1_000_000));
        assert_eq!(judge(&goals, &record)[0].sentence, "accuracy fell by 0.50 points; the goal allows 1");
        record.start = Some(stage("start", 0.97, 1_000_000));
        assert_eq!(judge(&goals, &record)[0].sentence, "accuracy rose by 0.50 points; the goal allows a fall of 1");
    }

    #[test]
    fn a_file_on_chosen_samples_is_judged_by_the_start_on_the_same_or_not_at_all() {
        let goals = Goals { max_accuracy_drop: Some(1.0), ..Goals::default() };
        let original = OriginalRecord { stage: "start".into(), accuracy: Some(0.8), ..OriginalRecord::default() };
        let mut deployed = stage("deploy", 0.6, 1);
        deployed.deploy = Some(DeployRecord { chosen_images: Some(5), original: Some(original), ..DeployRecord::default() });
        let mut record = RunRecord { start: Some(stage("start", 0.5, 1)), stages: vec![deployed], ..RunRecord::default() };
        assert_eq!(judge(&goals, &record)[0].sentence, "accuracy fell by 20.00 points; the goal allows 1");
        record.stages.insert(0, stage("distill", 0.5, 1));
        record.stages[0].metrics.other.insert(teacher_figure("accuracy"), 0.9);
        record.start = Some(stage("start", 0.1, 1));
        let undecided = judge(&goals, &record).remove(0);
        assert_eq!((undecided.measured, undecided.met), (None, false), "the teacher was scored on all samples");
        assert!(undecided.sentence.starts_with("accuracy: undecided: the file was scored on 5 of the test samples"));
        record.start = None;
        record.stages[0] = stage("train", 0.5, 1);
        assert_eq!(judge(&goals, &record)[0].measured, None, "another stage than the one that stands beside the file");
        record.stages[1].deploy.as_mut().unwrap().chosen_images = None;
        assert_eq!(judge(&goals, &record)[0].sentence, "accuracy rose by 10.00 points; the goal allows a fall of 1");
    }

    #[test]
    fn an_error_has_goals_of_its_own_in_which_a_rise_is_the_loss() {
        let metric = |key: &str, label: &str, better| MetricRecord { key: key.into(), label: label.into(), better, percent: false };
        let metrics = vec![metric("mae", "MAE", Better::Lower), metric("r2", "R²", Better::Higher)];
        let stage = |name: &str, mae: f64, r2: f64| {
            let mut s = StageRecord { name: name.into(), ..StageRecord::default() };
            s.metrics.keep(&[("mae", mae), ("r2", r2)].into());
            s
        };
        let record = RunRecord {
            task: report::record::TaskRecord { kind: "regression".into(), metrics },
            stages: vec![stage("train", 0.2, 0.9), stage("deploy", 0.26, 0.92)],
            ..RunRecord::default()
        };
        let goals = Goals {
            metrics: [
                ("mae".to_string(), MetricGoal { max: Some(0.3), max_rise: Some(0.05), ..MetricGoal::default() }),
                ("r2".to_string(), MetricGoal { min: Some(0.95), max_drop: Some(0.01), ..MetricGoal::default() }),
            ]
            .into(),
            ..Goals::default()
        };
        let told: Vec<(bool, String)> = judge(&goals, &record).into_iter().map(|v| (v.met, v.sentence)).collect();
        let expected = [
            (false, "MAE rose by 0.06000; the goal allows 0.05"),
            (true, "MAE: 0.2600; the goal allows 0.3"),
            (true, "R² rose by 0.02000; the goal allows a fall of 0.01"),
            (false, "R²: 0.9200; the goal is at least 0.95"),
        ];
        assert_eq!(told, expected.map(|(met, text)| (met, text.to_string())));
    }
}
