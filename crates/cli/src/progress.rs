//! Progress of a run on stderr: a bar with rate and time left on a terminal, a line an epoch elsewhere.
use crate::output::Printer;
use espalier::pipeline::{Event, Observer};
use espalier::report::record::Status;
use espalier::report::text;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Hears a run and shows it.
pub(crate) struct Progress<'a> {
    printer: &'a Printer,
    bar: ProgressBar,
    what: String,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(printer: &'a Printer) -> Self {
        let bar = ProgressBar::new(0);
        // indicatif draws nothing where stderr is not a terminal.
        bar.set_draw_target(if printer.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() });
        let style = ProgressStyle::with_template("  {msg:24} [{bar:30}] {pos}/{len} {per_sec}, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Progress { printer, bar, what: String::new() }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| self.printer.note(text));
    }
}

impl Observer for Progress<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::StageStarted { index, stages, name, kind } => {
                let kind = if name == kind { String::new() } else { format!(" ({kind})") };
                self.say(&format!("[{}/{stages}] {name}{kind}", index + 1));
            }
            Event::Progress { what, done, total, loss } => {
                if self.what != *what {
                    self.what = what.to_string();
                    self.bar.reset();
                }
                self.bar.set_length(*total);
                self.bar.set_message(loss.map_or(what.to_string(), |l| format!("{what}, loss {l:.4}")));
                self.bar.set_position(*done);
            }
            Event::Epoch { point, epochs } => {
                let share = |name: &str, v: Option<f64>| v.map_or(String::new(), |v| format!(", {name} {}", text::percent(v)));
                let rate = point.images_per_s.map_or(String::new(), |r| format!(", {r:.0} images/s"));
                self.say(&format!(
                    "  epoch {}/{epochs}: loss {:.4}{}{}{rate}",
                    point.epoch,
                    point.loss,
                    share("training", point.train_accuracy),
                    share("validation", point.validation_accuracy)
                ));
            }
            Event::Note(note) if note.warning || self.printer.verbose => {
                self.say(&format!("  {}{}", if note.warning { "warning: " } else { "" }, note.text));
            }
            Event::Note(_) => {}
            Event::StageFinished { record } => {
                self.what.clear();
                self.bar.reset();
                let accuracy = record.shown_accuracy().map_or(String::new(), |a| format!(", accuracy {}", text::percent(a)));
                let time = match record.status {
                    Status::Cached => "taken from an earlier run".to_string(),
                    Status::Run => format!("done in {}", text::duration(record.seconds)),
                };
                self.say(&format!("  {time}{accuracy}"));
            }
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
