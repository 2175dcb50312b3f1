//! Progress on stderr: a bar with rate and time left on a terminal, a line an epoch elsewhere.
use crate::output::Printer;
use espalier::pipeline::{Event, Listener};
use espalier::report::record::{StageRecord, Status, TaskRecord};
use espalier::report::text;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Listens to a run's events and prints them.
pub(crate) struct Progress<'a> {
    printer: &'a Printer,
    /// The bar; absent until there is progress to show.
    bar: Option<ProgressBar>,
    what: String,
    /// When the present work began, and when a line about it was last printed (where no bar can be drawn).
    began: Instant,
    told: Instant,
    /// The stage that runs.
    stage: String,
    /// Warnings that were printed: stage and text.
    warned: Vec<(String, String)>,
}

/// Time between two lines of progress where no bar can be drawn.
const EVERY: Duration = Duration::from_secs(30);

/// A rate as text: `12.3/s`, or `4.56 s each` for slow work.
fn rate(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    let rate = state.per_sec();
    let _ = match rate {
        r if r >= 100.0 => write!(out, "{r:.0}/s"),
        r if r >= 1.0 || r <= 0.0 => write!(out, "{r:.1}/s"),
        r => write!(out, "{:.1} s each", 1.0 / r),
    };
}

impl<'a> Progress<'a> {
    pub(crate) fn new(printer: &'a Printer) -> Self {
        let now = Instant::now();
        Progress { printer, bar: None, what: String::new(), began: now, told: now, stage: String::new(), warned: vec![] }
    }

    /// Shows the progress of one kind of work.
    pub(crate) fn advance(&mut self, what: &str, done: u64, total: u64, loss: Option<f64>) {
        if self.printer.quiet {
            return;
        }
        if self.what != what {
            self.clear();
            self.what = what.to_string();
            (self.began, self.told) = (Instant::now(), Instant::now());
        }
        if !std::io::stderr().is_terminal() {
            return self.tell(what, done, total);
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("  {msg:22} [{bar:24}] {pos}/{len}, {rate}, {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("rate", rate).progress_chars("=> "));
            bar
        });
        bar.set_length(total);
        bar.set_message(loss.map_or(what.to_string(), |l| format!("{what}, loss {l:.4}")));
        bar.set_position(done);
    }

    /// Prints a line now and then where no bar can be drawn, so that a log does not stand still for minutes.
    fn tell(&mut self, what: &str, done: u64, total: u64) {
        if self.told.elapsed() < EVERY || done == 0 || total == 0 {
            return;
        }
        self.told = Instant::now();
        let left = self.began.elapsed().as_secs_f64() / done as f64 * total.saturating_sub(done) as f64;
        self.printer.note(&format!("  {what}: {done} of {total}, about {} left", text::duration(left)));
    }

    /// Removes the bar until there is progress again.
    pub(crate) fn clear(&mut self) {
        self.what.clear();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// True if the warning was printed already.
    pub(crate) fn has_warned(&self, stage: &str, text: &str) -> bool {
        self.warned.iter().any(|(s, t)| s == stage && t == text)
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.printer.note(text)),
            None => self.printer.note(text),
        }
    }

    fn finished(&mut self, record: &StageRecord, task: &TaskRecord) {
        self.clear();
        if self.printer.verbose {
            for part in &record.float_parts {
                self.say(&format!("  stays float: {} '{}': {}", part.op_type, part.node, part.reason));
            }
        }
        let sqnr = || record.shown_sqnr().map(|d| format!(", {d:.1} dB of signal to noise"));
        let metric = task.main();
        let shown = record.shown(&metric).map(|v| format!(", {} {}", metric.label, metric.write(v)));
        let figure = shown.or_else(sqnr).unwrap_or_default();
        let time = match record.status {
            Status::Cached => "taken from an earlier run".to_string(),
            Status::Run => format!("done in {}", text::duration(record.seconds)),
        };
        self.say(&format!("  {time}{figure}"));
    }
}

impl Listener for Progress<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Start => {
                self.stage = "start".into();
                self.say("the model as it is");
            }
            Event::StageStarted { index, stages, name, kind } => {
                self.stage = name.to_string();
                let kind = if name == kind { String::new() } else { format!(" ({kind})") };
                self.say(&format!("[{}/{stages}] {name}{kind}", index + 1));
            }
            Event::Progress { what, done, total, loss } => self.advance(what, *done, *total, *loss),
            Event::Epoch { point, epochs, metric } => {
                let label = if metric.percent { String::new() } else { format!("{} ", metric.label) };
                let share = |name: &str, v: Option<f64>| v.map_or(String::new(), |v| format!(", {name} {label}{}", metric.write(v)));
                let rate = point.images_per_s.map_or(String::new(), |r| format!(", {r:.0} samples/s"));
                self.say(&format!(
                    "  epoch {}/{epochs}: loss {:.4}{}{}{rate}",
                    point.epoch,
                    point.loss,
                    share("training", point.train_accuracy),
                    share("validation", point.validation_figure())
                ));
            }
            Event::Note(note) => {
                if note.warning && !self.printer.quiet {
                    self.warned.push((self.stage.clone(), note.text.clone()));
                }
                self.say(&format!("  {}{}", if note.warning { "warning: " } else { "" }, text::line(&note.text)));
            }
            Event::StageFinished { record, task } => self.finished(record, task),
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}
