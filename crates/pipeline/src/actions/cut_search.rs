//! How many channels go until the deployed file is small or fast enough: candidates are cut, written and measured.
use super::channels::Cutter;
use super::{CompressOn, Tick};
use crate::StageError;
use crate::run_dir::{Cache, Key};
use deploy::measure::{LatencyOptions, latencies};
use deploy::runtime::{Runtime, SessionOptions, Source, of_target};
use graph::Model;
use prune::PruneError;
use prune::channels::{ChannelSettings, Chosen, Ranking, Remove};
use report::record::CutRecord;
use report::text;
use serde::{Deserialize, Serialize};
use technique::Fault;
use train::Named;

/// The cache's name for removals that were found.
const KIND: &str = "channel_cut";

/// Shares of the removal between which no further candidate is measured.
const NEAR: f64 = 0.01;

/// What the deployed file has to meet.
pub struct CutGoal<'a> {
    /// Its size in bytes, at most.
    pub bytes: Option<u64>,
    /// Share of the time of one run of the uncut network's file that is saved at least, in this runtime.
    pub latency: Option<(f64, Timing)>,
    /// Writes the file that a network would be deployed as.
    pub file: &'a dyn Fn(&Model) -> Result<Vec<u8>, StageError>,
}

/// How the time of a run is measured.
pub struct Timing {
    runtime: Box<dyn Runtime>,
    threads: usize,
    runs: usize,
}

impl Timing {
    /// In the runtime of a target.
    ///
    /// # Errors
    /// A [`Fault`] at `remove.latency` if it is not there, or its speed says nothing.
    pub fn of(target: &target::Choice, threads: usize, runs: usize) -> Result<Timing, Fault> {
        let refused = |what: String| Err(Fault::new("latency", what).under("remove").hint("set remove = { macs = ... } in its place"));
        let choice = match of_target(&**target.member()) {
            Ok(choice) => choice,
            Err(e) => return refused(format!("is measured in the target's runtime: {e}")),
        };
        if let Some(why) = choice.note {
            return refused(format!("is measured in the target's runtime, which is not there: {why}"));
        }
        if choice.runtime.name() == "reference" {
            return refused(
                "is measured in the target's runtime, and the speed of the reference interpreter says nothing about a file".into(),
            );
        }
        Ok(Timing { runtime: choice.runtime, threads, runs })
    }

    /// Milliseconds of one run of each file, run in turn: the median.
    fn measure(&self, files: [(&[u8], &Named); 2]) -> Result<[f64; 2], StageError> {
        let load = |bytes| self.runtime.load(Source::Bytes(bytes), SessionOptions::default_arithmetic(self.threads));
        let [mut a, mut b] = [load(files[0].0)?, load(files[1].0)?];
        let options = LatencyOptions { runs: self.runs, ..LatencyOptions::default() };
        let took = latencies(&mut [(a.as_mut(), files[0].1), (b.as_mut(), files[1].1)], options)?;
        match took.as_slice() {
            [a, b] => Ok([a.p50_ms, b.p50_ms]),
            _ => Err("no latency was measured".into()),
        }
    }
}

/// A removal among those that a search tries.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Taken {
    /// What is asked for beside the goal.
    Least,
    /// With this share of what the goal depends on.
    Share(f64),
    /// All that the settings allow.
    Most,
}

/// What a search found. Times are not the same when they are measured again, so a stage that goes on after it was killed reads it.
#[derive(Serialize, Deserialize)]
struct Found {
    taken: Taken,
    measured: Vec<CutRecord>,
    note: String,
}

/// A search for the least removal that meets a goal.
pub(super) struct Search<'a> {
    cutter: &'a Cutter<'a>,
    settings: &'a ChannelSettings,
    goal: &'a CutGoal<'a>,
    /// The uncut network's file.
    whole: Vec<u8>,
    measured: Vec<CutRecord>,
}

impl<'a> Search<'a> {
    pub(super) fn new(cutter: &'a Cutter<'a>, settings: &'a ChannelSettings, goal: &'a CutGoal<'a>) -> Result<Self, StageError> {
        Ok(Search { cutter, settings, goal, whole: (goal.file)(cutter.before)?, measured: vec![] })
    }

    /// The least removal among those that bisection tries that meets the goal, with what was measured and a sentence for the user.
    ///
    /// # Errors
    /// [`Fault`] if the most that can be removed does not meet it; errors of cutting, writing or running a candidate.
    pub(super) fn run(mut self, on: &CompressOn, tick: Tick) -> Result<(Chosen<'a>, Vec<CutRecord>, String), StageError> {
        let ranking = self.cutter.ranking(&self.settings(0.5))?;
        let entry = on.cache.map(|cache| Ok::<_, StageError>((cache, self.key(&cache, on)?))).transpose()?;
        if let Some(known) = entry.as_ref().and_then(|(cache, key)| cache.get::<Found>(KIND, key)) {
            return Ok((self.at(&ranking, known.taken)?, known.measured, known.note));
        }
        let taken = self.search(&ranking, tick)?;
        let chosen = self.at(&ranking, taken)?;
        let note = self.tell(&chosen);
        let found = Found { taken, measured: self.measured, note };
        if let Some((cache, key)) = entry {
            cache.put(KIND, &key, &found)?;
        }
        Ok((chosen, found.measured, found.note))
    }

    /// All that a search depends on besides the machine.
    fn key(&self, cache: &Cache, on: &CompressOn) -> Result<Key, StageError> {
        let timing = self.goal.latency.as_ref().map(|(share, t)| (share, t.runtime.name(), t.threads, t.runs));
        Ok(cache
            .key()
            .part(KIND, onnx::to_bytes(self.cutter.before)?)
            .part("settings", serde_json::to_string(self.settings)?)
            .part("goal", serde_json::to_string(&(self.goal.bytes, timing))?)
            .part("training", serde_json::to_string(&(on.training.batch, on.training.label_smoothing))?)
            .part("file", &self.whole)
            .finish())
    }

    fn at(&self, ranking: &Ranking<'a>, taken: Taken) -> Result<Chosen<'a>, PruneError> {
        match taken {
            Taken::Least => ranking.reach(&Remove { latency: None, dead: false, ..self.settings.remove.clone() }),
            Taken::Share(share) => ranking.reach(&self.settings(share).remove),
            Taken::Most => Ok(ranking.most()),
        }
    }

    fn search(&mut self, ranking: &Ranking<'a>, tick: Tick) -> Result<Taken, StageError> {
        let most = ranking.most();
        // A time cannot be saved by removing nothing.
        if self.settings.remove.has_share() || self.goal.latency.is_none() {
            let least = self.at(ranking, Taken::Least)?;
            if self.meets(&least)? {
                return Ok(Taken::Least);
            }
        }
        let steps = (1.0 / NEAR).log2().ceil() as u64 + 1;
        tick(0, steps);
        if !self.meets(&most)? {
            return Err(self.unmet().into());
        }
        let share = |(before, after): (u64, u64)| (before - after) as f64 / before.max(1) as f64;
        let (mut low, mut high) = (0.0, if self.goal.latency.is_some() { share(most.macs) } else { share(most.parameters) });
        let (mut best, mut taken) = (most, Taken::Most);
        let mut step = 1;
        while high - low > NEAR {
            tick(step, steps);
            step += 1;
            let middle = (low + high) / 2.0;
            let candidate = match self.at(ranking, Taken::Share(middle)) {
                Ok(candidate) => candidate,
                // Rounding may leave a gap below the most.
                Err(PruneError::Setting(_)) => {
                    low = middle;
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            if candidate.removed.len() >= best.removed.len() {
                high = middle;
            } else if self.meets(&candidate)? {
                (high, best, taken) = (middle, candidate, Taken::Share(middle));
            } else {
                low = middle;
            }
        }
        tick(steps, steps);
        Ok(taken)
    }

    /// The settings with a share of what a goal depends on: parameters for bytes, multiply-accumulates for time.
    fn settings(&self, share: f64) -> ChannelSettings {
        let own = &self.settings.remove;
        let at_least = |own: Option<f64>, wanted: bool| if wanted { Some(own.map_or(share, |own| own.max(share))) } else { own };
        let remove = Remove {
            macs: at_least(own.macs, self.goal.latency.is_some()),
            parameters: at_least(own.parameters, self.goal.latency.is_none()),
            latency: None,
            dead: false,
            ..own.clone()
        };
        ChannelSettings { remove, ..self.settings.clone() }
    }

    /// Cuts a candidate, measures its file, and says whether it meets the goal.
    fn meets(&mut self, candidate: &Chosen) -> Result<bool, StageError> {
        let model = self.cutter.cut(candidate)?;
        let bytes = (self.goal.file)(&model)?;
        let share = |(before, after): (u64, u64)| (before - after) as f64 / before.max(1) as f64;
        let mut record = CutRecord {
            macs: share(candidate.macs),
            parameters: share(candidate.parameters),
            channels: candidate.removed.len() as u64,
            bytes: bytes.len() as u64,
            whole_bytes: self.whole.len() as u64,
            ..CutRecord::default()
        };
        let small = self.goal.bytes.is_none_or(|most| record.bytes <= most);
        let mut fast = true;
        if let Some((wanted, timing)) = &self.goal.latency {
            let [whole, own] = timing.measure([(&self.whole, self.cutter.sample), (&bytes, self.cutter.sample)])?;
            (record.whole_ms, record.ms, record.runtime) = (Some(whole), Some(own), Some(timing.runtime.name().into()));
            fast = own <= whole * (1.0 - wanted);
        }
        record.meets = small && fast;
        self.measured.push(record);
        Ok(small && fast)
    }

    /// Marks what was taken, and tells of it.
    fn tell(&mut self, chosen: &Chosen) -> String {
        let of = |r: &&mut CutRecord| r.channels == chosen.removed.len() as u64 && r.meets;
        let told = self.measured.iter_mut().rev().find(of).map(|record| {
            record.chosen = true;
            record.told()
        });
        format!("{} candidates were cut, written and measured; the one that was taken: {}", self.measured.len(), told.unwrap_or_default())
    }

    fn unmet(&self) -> Fault {
        let told = self.measured.last().map(CutRecord::told).unwrap_or_default();
        let what = format!("with the most channels gone that these settings allow: {told}");
        let lower = "lower min_per_layer, or name fewer layers in skip; espalier inspect --groups lists what stays and why";
        match (self.goal.bytes, &self.goal.latency) {
            (Some(bytes), None) => Fault::new("budget", format!("a file of {} cannot be reached: {what}", text::bytes(bytes))).hint(lower),
            (None, Some((share, _))) => {
                Fault::new("latency", format!("{} less time cannot be reached: {what}", text::percent(*share))).under("remove").hint(lower)
            }
            _ => Fault::new("budget", format!("budget and remove.latency cannot both be reached: {what}")).hint(lower),
        }
    }
}
