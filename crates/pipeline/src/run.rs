//! Runs the stages of a recipe.
use crate::actions::task_record;
use crate::fall::fall;
use crate::live::Live;
use crate::recipe::{Loaded, ModelSource, Stage};
use crate::run_dir::{Cache, Key, KeyBuilder, RunDir, StoredResult, code_version, fingerprint};
use crate::stages::{Bodies, Clock, Measure, StageBody, StageCx, StageError};
use crate::{Event, Listener, PipelineError, environment, judge};
use graph::Model;
use report::record::{InputRecord, Note, RecipeRecord, RunRecord, SCHEMA_VERSION, StageRecord, Status};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use technique::Choice;

/// The name of the original model's record.
pub(crate) const START: &str = "start";
/// File names of the run's record, its page, and its training curves.
pub(crate) const RECORD: &str = "run.json";
pub(crate) const PAGE: &str = "report.html";
pub(crate) const CURVES: &str = "curves.csv";

/// Options of a run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The run's folder.
    pub out: PathBuf,
    /// A folder to look in first for the recipe's files and data sets.
    pub data: Option<PathBuf>,
    /// Set to stop after the current step.
    pub stop: Arc<AtomicBool>,
    /// The command line, for the record.
    pub command: Vec<String>,
    /// The `espalier` program, which a deploy stage starts to measure memory in a separate process; absent: memory is not
    /// measured.
    pub program: Option<PathBuf>,
    /// Writes the report after each epoch too, as a page that reloads itself.
    pub watch: bool,
}

/// Runs a recipe, stage by stage; stored results are reused.
///
/// # Errors
/// [`PipelineError`]; finished stages and the last checkpoint are kept, so that the same call goes on from there.
pub fn run(loaded: &Loaded, options: &RunOptions, listener: &mut dyn Listener) -> Result<RunRecord, PipelineError> {
    run_stages(loaded, options, listener, &crate::stages::body, true)
}

/// [`run`] with other work in place of the stages' own.
///
/// # Errors
/// As [`run`].
pub fn run_with(loaded: &Loaded, options: &RunOptions, listener: &mut dyn Listener, bodies: Bodies) -> Result<RunRecord, PipelineError> {
    run_stages(loaded, options, listener, bodies, false)
}

/// With a trial of the plan before the first stage that has to run, if `to_try`.
fn run_stages(
    loaded: &Loaded,
    options: &RunOptions,
    listener: &mut dyn Listener,
    bodies: Bodies,
    to_try: bool,
) -> Result<RunRecord, PipelineError> {
    let start = Instant::now();
    let inputs = loaded.inputs(options.data.as_deref());
    let loaded = &loaded.with_files(options.data.as_deref())?;
    let recipe = &loaded.recipe;
    let (common, read) = common_key(loaded, options)?;
    let dir = RunDir::reading(&options.out, needed_bytes(loaded, options)?, inputs, &outputs(loaded))?;
    dir.write("recipe.toml", loaded.text.as_bytes())?;
    let threads = tensor::set_threads(recipe.threads);
    let _loops = ::train::stop_when(options.stop.clone());
    let record = RunRecord {
        schema_version: SCHEMA_VERSION,
        name: recipe.name.clone(),
        command: options.command.clone(),
        started_unix: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        environment: environment(threads),
        inputs: read,
        recipe: RecipeRecord {
            text: loaded.text.clone(),
            overrides: loaded.overrides.clone(),
            settings: serde_json::to_value(recipe).map_err(|e| PipelineError::file(&options.out, e))?,
        },
        task: task_record(&recipe.task),
        ..RunRecord::default()
    };
    let mut live = Live::new(listener, &dir, record, options.watch);
    let mut runner = Runner {
        loaded,
        options,
        dir: &dir,
        common: &common,
        bodies,
        threads,
        live: &mut live,
        results: BTreeMap::new(),
        keys: BTreeMap::new(),
        last: None,
        standing: None,
        to_try,
    };
    let begun_with = runner.start()?;
    runner.live.record.start = begun_with;
    for (index, stage) in recipe.stages.iter().enumerate() {
        let done = runner.stage(index, stage)?;
        let record = &mut runner.live.record;
        if let Some(deploy) = &done.deploy {
            let versions = deploy.runtimes.iter().filter_map(|r| Some((r.runtime.clone(), r.version.clone()?)));
            record.environment.runtimes.extend(versions);
        }
        record.stages.push(done);
        record.seconds = start.elapsed().as_secs_f64();
        runner.live.write()?;
    }
    let mut record = live.record;
    record.goals = judge(&recipe.goals, &record);
    record.seconds = start.elapsed().as_secs_f64();
    crate::live::write(&dir, &record, None)?;
    Ok(record)
}

struct Runner<'a, 'o> {
    loaded: &'a Loaded,
    options: &'a RunOptions,
    dir: &'a RunDir,
    common: &'a KeyBuilder,
    bodies: Bodies<'a>,
    threads: usize,
    live: &'a mut Live<'o>,
    /// Each stage's result so far.
    results: BTreeMap<String, PathBuf>,
    keys: BTreeMap<String, Key>,
    last: Option<(Key, PathBuf)>,
    /// The last measured record.
    standing: Option<StageRecord>,
    /// Whether the trial of the plan is still to be made.
    to_try: bool,
}

/// A stage's work, and the name of its record.
struct StageTask<'a> {
    name: &'a str,
    kind: &'a str,
    index: usize,
    body: Arc<dyn StageBody>,
}

impl Runner<'_, '_> {
    /// The model file that the run begins with, measured as it is: losses of accuracy are relative to it. `None` if the run
    /// builds its own network.
    fn start(&mut self) -> Result<Option<StageRecord>, PipelineError> {
        let Some(source @ ModelSource { file: Some(file), .. }) = self.loaded.recipe.begins_with() else { return Ok(None) };
        self.live.event(&Event::Start);
        let place = |p: &str| self.loaded.resolve(p, self.options.data.as_deref());
        let key = self.common.clone().part("begins with", model_fingerprint(&place(file))?).finish();
        let mut record = match self.dir.stage(&key).result() {
            Some(stored) => StageRecord { status: Status::Cached, ..stored.record },
            None => {
                let started = crate::stages::start(source, self.loaded.recipe.seed, place);
                let (model, notes) = started.map_err(|e| PipelineError::stage(START, e))?;
                let task = StageTask { name: START, kind: START, index: 0, body: Arc::new(Measure { notes }) };
                self.work(task, &key, Some(model))?.record
            }
        };
        record.metrics.file_bytes = Some(model_files(&place(file)).iter().map(|f| size(f)).sum::<Result<u64, _>>()?);
        let task = self.live.record.task.clone();
        self.live.event(&Event::StageFinished { record: &record, task: &task });
        self.standing = Some(record.clone());
        Ok(Some(record))
    }

    fn stage(&mut self, index: usize, stage: &Stage) -> Result<StageRecord, PipelineError> {
        let name = stage.name();
        let stages = self.loaded.recipe.stages.len();
        self.live.event(&Event::StageStarted { index, stages, name, kind: stage.kind() });
        let key = stage_key(self.loaded, self.options, self.common, &self.keys, self.last.as_ref().map(|(key, _)| key), index)?;
        let dir = self.dir.stage(&key);
        let stored = match dir.result() {
            Some(mut stored) => {
                stored.record.status = Status::Cached;
                stored
            }
            None => {
                let input = self.input(name)?;
                if std::mem::take(&mut self.to_try)
                    && let Some(text) = crate::trial::trial(self.loaded, self.options.data.as_deref(), index, input.clone())?
                {
                    self.live.event(&Event::Note(&Note { warning: false, text }));
                }
                let task = StageTask { name, kind: stage.kind(), index, body: (self.bodies)(stage) };
                self.work(task, &key, input)?
            }
        };
        let record = self.publish(name, &stored)?;
        self.results.insert(name.to_string(), stored.model.clone());
        self.keys.insert(name.to_string(), key);
        self.last = Some((key, stored.model));
        let task = self.live.record.task.clone();
        self.live.event(&Event::StageFinished { record: &record, task: &task });
        self.standing = Some(record.clone());
        Ok(record)
    }

    /// Runs a task in the context of a stage and stores the result.
    fn work(&mut self, task: StageTask, key: &Key, input: Option<Model>) -> Result<StoredResult, PipelineError> {
        let StageTask { name, kind, index, body } = task;
        let stop = self.options.stop.clone();
        let failed = |e: StageError| match e.downcast::<PipelineError>() {
            Ok(own) => *own,
            // The stop flag ended a Loop of the graph: that is no fault of the model.
            Err(_) if stop.load(Ordering::Relaxed) => PipelineError::Interrupted { stage: name.to_string() },
            Err(other) => PipelineError::stage(name, other),
        };
        let begun = Instant::now();
        let dir = self.dir.stage(key);
        let planned = self.live.record.stages.iter().flat_map(|s| &s.float_parts);
        let float_reasons = planned.map(|p| (p.node.clone(), p.reason.clone())).collect();
        let mut cx = StageCx {
            loaded: self.loaded,
            name,
            index,
            threads: self.threads,
            stop: &self.options.stop,
            data_root: self.options.data.as_deref(),
            dir: &dir,
            cache: Cache::new(self.dir, self.common),
            results: &self.results,
            listener: &mut *self.live,
            notes: vec![],
            clock: Clock::default(),
            program: self.options.program.as_deref(),
            float_reasons,
        };
        cx.check_stop()?;
        let mut output = body.run(&mut cx, input).map_err(failed)?;
        let notes = std::mem::take(&mut cx.notes).into_iter().chain(std::mem::take(&mut output.notes)).collect();
        let bytes = onnx::to_bytes(&output.model).map_err(|e| PipelineError::stage(name, e))?;
        let spent = cx.clock.finish();
        let mut record = StageRecord {
            name: name.to_string(),
            kind: kind.to_string(),
            key: key.to_string(),
            status: Status::Run,
            seconds: begun.elapsed().as_secs_f64(),
            spent,
            model: None,
            metrics: output.metrics,
            layers: output.layers,
            float_parts: output.float_parts,
            plan: output.plan,
            shares: output.shares,
            cuts: output.cuts,
            epochs: output.epochs,
            classes: output.classes,
            deploy: output.deploy,
            notes,
        };
        let warning = self.standing.as_ref().and_then(|before| fall(&self.loaded.recipe, index, before, &record));
        if let Some(text) = warning {
            let note = Note { warning: true, text };
            self.live.event(&Event::Note(&note));
            record.notes.push(note);
        }
        dir.commit(&bytes, &output.files, &record)
    }

    /// The graph that a stage starts from: the previous result, read back from its file, so that a resumed run reads the same.
    fn input(&self, stage: &str) -> Result<Option<Model>, PipelineError> {
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| PipelineError::stage(stage, e);
        match (&self.last, &self.loaded.recipe.model) {
            (Some((_, path)), _) => Ok(Some(onnx::load(path).map_err(|e| failed(e.into()))?)),
            (None, Some(source)) => {
                let folder = |p: &str| self.loaded.resolve(p, self.options.data.as_deref());
                crate::stages::start(source, self.loaded.recipe.seed, folder).map(|(model, _)| Some(model)).map_err(failed)
            }
            (None, None) => Ok(None),
        }
    }

    /// Publishes the result's files under the stage's name.
    fn publish(&self, name: &str, stored: &StoredResult) -> Result<StageRecord, PipelineError> {
        let mut record = stored.record.clone();
        let main = format!("{name}.onnx");
        self.dir.publish(&stored.model, &main)?;
        for (file, path) in &stored.files {
            self.dir.publish(path, file)?;
        }
        record.model = Some(main);
        Ok(record)
    }
}

/// Everything that a stage's result depends on; `keys` are those of the stages before it, `last` is the one just before. A memory
/// budget is not included: a training that ran out of memory can continue with a smaller one.
pub(crate) fn stage_key(
    loaded: &Loaded,
    options: &RunOptions,
    common: &KeyBuilder,
    keys: &BTreeMap<String, Key>,
    last: Option<&Key>,
    index: usize,
) -> Result<Key, PipelineError> {
    let stage = &loaded.recipe.stages[index];
    let place = |path: &str| loaded.resolve(path, options.data.as_deref());
    let mut settings = serde_json::to_value(stage).map_err(|e| PipelineError::stage(stage.name(), e))?;
    if let Some(keys) = settings.as_object_mut() {
        keys.remove("memory");
    }
    let mut key = common.clone().part("index", index.to_string()).part("settings", settings.to_string());
    key = key.part("target", loaded.recipe.target_from(index).to_string());
    if let Some(input) = last {
        key = key.part("input", input.to_string());
    }
    if let Some(teacher) = stage.teacher() {
        let content = match keys.get(teacher) {
            Some(earlier) => earlier.to_string(),
            None => model_fingerprint(&place(teacher))?,
        };
        key = key.part("teacher", content);
    }
    if let Some(file) = stage.own_file() {
        key = key.part("model", model_fingerprint(&place(file))?);
    }
    Ok(key.finish())
}

/// The names of a run's output files.
fn outputs(loaded: &Loaded) -> Vec<String> {
    let endings = [".onnx", ".deployed.onnx", crate::stages::PLAN, crate::stages::TABLE];
    let stages = loaded.recipe.stages.iter().flat_map(|s| endings.map(|ending| format!("{}{ending}", s.name())));
    ["recipe.toml", RECORD, PAGE, CURVES].map(String::from).into_iter().chain(stages).collect()
}

/// Everything that all stages depend on: the code, the seed, the threads, the data, the first model. Also returns what was read,
/// for the record.
pub(crate) fn common_key(loaded: &Loaded, options: &RunOptions) -> Result<(KeyBuilder, Vec<InputRecord>), PipelineError> {
    let recipe = &loaded.recipe;
    let json = |value: Result<String, serde_json::Error>| value.map_err(|e| PipelineError::file(&loaded.folder, e));
    let place = |p: &str| loaded.resolve(p, options.data.as_deref());
    let mut inputs = vec![];
    let mut read = |role: &str, path: &str, blake3: String| {
        inputs.push(InputRecord { role: role.to_string(), path: path.to_string(), blake3: blake3.clone() });
        blake3
    };
    let mut key = KeyBuilder::default()
        .part("code", code_version()?)
        .part("seed", recipe.seed.to_string())
        .part("threads", json(serde_json::to_string(&recipe.threads))?);
    if recipe.task != Choice::default() {
        key = key.part("task", json(serde_json::to_string(&recipe.task))?);
    }
    if let Some(data) = &recipe.data {
        key = key.part("data", json(serde_json::to_string(data))?);
        let sets = [("data.train", &data.train), ("data.test", &data.test), ("data.validation_set", &data.validation_set)];
        for (role, path) in sets.into_iter().filter_map(|(role, path)| Some((role, path.as_ref()?))) {
            key = key.part(path, read(role, path, fingerprint(&place(path))?));
        }
    }
    if let Some(model) = &recipe.model {
        key = key.part("start", json(serde_json::to_string(model))?);
        if let Some(file) = &model.file {
            key = key.part("file", read("model.file", file, model_fingerprint(&place(file))?));
        }
    }
    if let Some(own) = recipe.begins_with().filter(|m| recipe.model.as_ref() != Some(m)).and_then(|m| m.file.as_ref()) {
        read("stages.model.file", own, model_fingerprint(&place(own))?);
    }
    Ok((key, inputs))
}

/// A model file and its data files. A file that cannot be read is an error where it is used.
fn model_files(path: &Path) -> Vec<PathBuf> {
    let beside = onnx::load(path).map(|model| onnx::data_files(&model)).unwrap_or_default();
    std::iter::once(path.to_path_buf()).chain(beside).collect()
}

/// [`fingerprint`] of a model, its data files included.
fn model_fingerprint(path: &Path) -> Result<String, PipelineError> {
    let own = fingerprint(path)?;
    let beside = model_files(path).iter().skip(1).map(|f| fingerprint(f)).collect::<Result<Vec<_>, _>>()?;
    if beside.is_empty() {
        return Ok(own);
    }
    let all = beside.iter().fold(KeyBuilder::default().part("model", own), |key, file| key.part("data", file));
    Ok(all.finish().to_string())
}

/// An upper estimate of the bytes that the run writes: for each stage its result twice, and a checkpoint with the best weights
/// and the optimizer's state, each of the size of the largest model that the recipe starts from or builds.
fn needed_bytes(loaded: &Loaded, options: &RunOptions) -> Result<u64, PipelineError> {
    const FLOOR: u64 = 16 << 20;
    let largest = match &loaded.recipe.model {
        Some(ModelSource { file: Some(file), .. }) => {
            let files = model_files(&loaded.resolve(file, options.data.as_deref()));
            files.iter().map(|f| size(f)).sum::<Result<u64, _>>()?
        }
        _ => 0,
    };
    Ok(FLOOR + largest * (2 * loaded.recipe.stages.len() as u64 + 6))
}

/// Bytes of a file.
fn size(path: &Path) -> Result<u64, PipelineError> {
    std::fs::metadata(path).map(|m| m.len()).map_err(|e| PipelineError::file(path, format!("cannot be read: {e}")))
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
