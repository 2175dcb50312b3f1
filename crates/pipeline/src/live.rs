//! Files in a run's folder that are updated during the run: the record and its page after each stage, the curves after each
//! epoch.
use crate::run::{CURVES, PAGE, RECORD};
use crate::run_dir::RunDir;
use crate::{Event, Listener, PipelineError};
use report::record::{RunRecord, StageRecord};
use std::time::{Duration, Instant};

/// Shortest time between two writes of the curves.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// Seconds after which a watched page reloads itself.
const REFRESH_S: u32 = 3;

/// Passes on events, and keeps the run's folder up to date.
pub(crate) struct Live<'o> {
    listener: &'o mut dyn Listener,
    dir: &'o RunDir,
    /// The record so far.
    pub(crate) record: RunRecord,
    /// The running stage.
    at_work: Option<StageRecord>,
    watch: bool,
    written: Instant,
}

impl<'o> Live<'o> {
    pub(crate) fn new(listener: &'o mut dyn Listener, dir: &'o RunDir, record: RunRecord, watch: bool) -> Self {
        Live { listener, dir, record, at_work: None, watch, written: Instant::now() }
    }

    /// Writes the record of the finished stages.
    pub(crate) fn write(&mut self) -> Result<(), PipelineError> {
        self.at_work = None;
        write(self.dir, &self.record, self.watch.then_some(REFRESH_S))
    }

    /// Writes the curves (and the page, if it is watched), including the running stage.
    fn epoch(&mut self) -> Result<(), PipelineError> {
        let mut record = self.record.clone();
        record.stages.extend(self.at_work.clone());
        self.dir.write(CURVES, report::curves(&record).as_bytes())?;
        if self.watch {
            self.dir.write(PAGE, report::html_live(&record, REFRESH_S).as_bytes())?;
        }
        Ok(())
    }
}

/// Writes a record, its page and its curves; `refresh`: seconds after which the page reloads itself.
pub(crate) fn write(dir: &RunDir, record: &RunRecord, refresh: Option<u32>) -> Result<(), PipelineError> {
    dir.write(RECORD, record.to_json().as_bytes())?;
    dir.write(CURVES, report::curves(record).as_bytes())?;
    let page = refresh.map_or_else(|| report::html(record), |seconds| report::html_live(record, seconds));
    dir.write(PAGE, page.as_bytes())
}

impl Listener for Live<'_> {
    fn event(&mut self, event: &Event) {
        self.listener.event(event);
        match event {
            Event::StageStarted { name, kind, .. } => {
                self.at_work = Some(StageRecord { name: name.to_string(), kind: kind.to_string(), ..StageRecord::default() });
            }
            Event::Epoch { point, .. } => {
                let Some(stage) = &mut self.at_work else { return };
                stage.epochs.push((*point).clone());
                if self.written.elapsed() >= AT_MOST_EVERY {
                    self.written = Instant::now();
                    // An error in writing a view does not stop the training; writing the record will report it.
                    self.epoch().ok();
                }
            }
            _ => {}
        }
    }
}
