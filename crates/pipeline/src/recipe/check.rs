//! What a recipe's types cannot say: ranges, and how its parts fit each other.
use super::error::did_you_mean;
use super::{BatchNorm, ByteSize, Inherit, ModelSource, Recipe, Stage};
use train::TrainError;
use zoo::{ZooError, ZooOptions};

/// What is wrong, and at which key.
pub(super) struct Fault {
    pub(super) path: Vec<String>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// More are a slip of the keyboard.
const MOST_THREADS: f64 = 1024.0;

/// More black pixels around an image are a slip of the keyboard.
const MOST_PADDING: f64 = 4096.0;

fn fault(path: &[&str], message: impl Into<String>) -> Fault {
    Fault { path: path.iter().map(|s| s.to_string()).collect(), message: message.into(), hint: None }
}

fn within(path: &[&str], value: f64, low: f64, high: f64, why: &str) -> Result<(), Fault> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let key = path.last().copied().unwrap_or_default();
    Err(fault(path, format!("{key} = {value} is not within {low}..{high}: {why}")))
}

pub(super) fn check(recipe: &Recipe) -> Result<(), Fault> {
    if recipe.name.is_empty() || recipe.name.contains(['/', '\\', '\0']) || recipe.name.starts_with('.') {
        return Err(fault(&["name"], "the name is also a folder's: it may not be empty, start with a dot or hold a slash"));
    }
    if i64::try_from(recipe.seed).is_err() {
        return Err(fault(&["seed"], format!("seed = {} is not within 0..{}", recipe.seed, i64::MAX)));
    }
    if let Some(n) = recipe.threads {
        within(&["threads"], n as f64, 1.0, MOST_THREADS, "absent: one for each processor")?;
    }
    if let Some(model) = &recipe.model {
        source(&["model"], model)?;
    }
    data(recipe)?;
    goals(recipe)?;
    if recipe.stages.is_empty() {
        return Err(fault(&["name"], "the recipe has no stage: add one under a heading [[stages]]"));
    }
    names(recipe)?;
    for (i, stage) in recipe.stages.iter().enumerate() {
        let at = i.to_string();
        starts(recipe, i)?;
        teacher(recipe, i)?;
        needs_data(recipe, i)?;
        training(stage, &at)?;
        stopping(recipe, stage, &at)?;
        own(stage, &at)?;
        distilled(recipe, i)?;
    }
    Ok(())
}

fn source(path: &[&str], model: &ModelSource) -> Result<(), Fault> {
    match (&model.file, &model.arch) {
        (Some(_), Some(_)) => Err(fault(path, "the model has both a file and an arch: one is needed")),
        (None, None) => Err(fault(path, "the model needs a file (an ONNX model) or an arch (one of the zoo)")),
        (Some(_), None) if model.classes.is_some() || model.input.is_some() => {
            Err(fault(path, "classes and input go with arch: a file has its own"))
        }
        (None, Some(arch)) => architecture(path, arch, model.width, model.classes, model.input.as_ref()),
        _ => Ok(()),
    }
}

/// `path` is the table's that names the architecture.
fn architecture(path: &[&str], arch: &str, width: f64, classes: Option<usize>, input: Option<&Vec<usize>>) -> Result<(), Fault> {
    let error = match zoo::find(arch) {
        Ok(entry) => {
            let mut options = ZooOptions { width, ..entry.default_options() };
            options.classes = classes.unwrap_or(options.classes);
            options.input = input.cloned().unwrap_or(options.input);
            return entry.check(&options).map_err(|e| match e {
                ZooError::Option { option, what, .. } => fault(&[path, &[option]].concat(), format!("{option} {what}")),
                other => fault(path, other.to_string()),
            });
        }
        Err(error) => error,
    };
    let path = &[path, &["arch"]].concat();
    let known: Vec<&str> = zoo::list().iter().map(|e| e.name).collect();
    let hint = did_you_mean(arch, known.iter().copied()).map(|k| format!("did you mean '{k}'?"));
    let message = if hint.is_some() { format!("unknown architecture '{arch}'") } else { error.to_string() };
    Err(Fault { hint, ..fault(path, message) })
}

fn data(recipe: &Recipe) -> Result<(), Fault> {
    let Some(data) = &recipe.data else { return Ok(()) };
    if !(0.0..1.0).contains(&data.validation) {
        return Err(fault(
            &["data", "validation"],
            format!("validation = {} is a part of the training images, 0..1, and leaves some to train on", data.validation),
        ));
    }
    if data.validation > 0.0 && data.validation_set.is_some() {
        return Err(fault(&["data", "validation"], "validation and validation_set are two answers to one question: give one"));
    }
    if let Some(preprocess) = &data.preprocess {
        preprocess.validate().map_err(|e| fault(&["data", "preprocess"], e.to_string()))?;
    }
    if let Some((name, _)) = data.inputs.iter().find(|(_, rule)| rule.carried.is_some() && data.validation > 0.0) {
        let message =
            format!("'{name}' is carried from row to row, and rows that are held out leave gaps: name data.validation_set instead");
        return Err(fault(&["data", "validation"], message));
    }
    let padding = data.augment.crop_padding as f64;
    within(&["data", "augment", "crop_padding"], padding, 0.0, MOST_PADDING, "it is a number of pixels")
}

fn goals(recipe: &Recipe) -> Result<(), Fault> {
    let goals = &recipe.goals;
    if let Some(drop) = goals.max_accuracy_drop {
        within(&["goals", "max_accuracy_drop"], drop, 0.0, 100.0, "it is a number of percentage points")?;
    }
    if let Some(least) = goals.min_accuracy {
        within(&["goals", "min_accuracy"], least, 0.0, 100.0, "it is a percentage")?;
    }
    metrics(recipe)?;
    match goals.max_latency_ms {
        Some(ms) if !(ms > 0.0 && ms.is_finite()) => {
            Err(fault(&["goals", "max_latency_ms"], format!("max_latency_ms = {ms}: a number of milliseconds above 0 is needed")))
        }
        _ => Ok(()),
    }
}

/// Goals are about figures that the task has.
fn metrics(recipe: &Recipe) -> Result<(), Fault> {
    let (goals, task) = (&recipe.goals, &recipe.task);
    let known: Vec<&str> = task.metrics().iter().map(|m| m.key).collect();
    let list = || format!("the task {} is judged by: {}", task.kind(), known.join(", "));
    let own = [("max_accuracy_drop", goals.max_accuracy_drop), ("min_accuracy", goals.min_accuracy)];
    if let Some((key, _)) = own.into_iter().find(|(_, goal)| goal.is_some() && !known.contains(&"accuracy")) {
        let hint = format!("{}; for example metrics.{} = {{ max = 0.5 }}", list(), known.first().unwrap_or(&"mae"));
        return Err(Fault { hint: Some(hint), ..fault(&["goals", key], format!("{key}: a {} has no accuracy", task.kind())) });
    }
    for (key, goal) in &goals.metrics {
        let path = ["goals", "metrics", key];
        if !known.contains(&key.as_str()) {
            let hint = did_you_mean(key, known.iter().copied()).map_or_else(list, |k| format!("did you mean '{k}'?"));
            return Err(Fault { hint: Some(hint), ..fault(&path, format!("'{key}' is not a figure of the task {}", task.kind())) });
        }
        let values = [("min", goal.min), ("max", goal.max), ("max_drop", goal.max_drop), ("max_rise", goal.max_rise)];
        let given: Vec<(&str, f64)> = values.into_iter().filter_map(|(what, value)| Some((what, value?))).collect();
        if given.is_empty() {
            let hint = "min, max, max_drop or max_rise with a number".to_string();
            return Err(Fault { hint: Some(hint), ..fault(&path, format!("the goal for '{key}' says nothing")) });
        }
        if let Some((what, value)) = given.iter().find(|(what, v)| !v.is_finite() || (what.starts_with("max_") && *v < 0.0)) {
            return Err(fault(&["goals", "metrics", key, what], format!("{what} = {value}: a number, 0 or more for a change, is needed")));
        }
    }
    Ok(())
}

fn names(recipe: &Recipe) -> Result<(), Fault> {
    for (i, stage) in recipe.stages.iter().enumerate() {
        let (name, at) = (stage.name(), i.to_string());
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            return Err(fault(
                &["stages", &at, "name"],
                format!("'{name}' is not a stage's name: letters, digits, '-' and '_' are allowed"),
            ));
        }
        if recipe.stages[..i].iter().any(|s| s.name() == name) {
            let hint = format!("give one of them a name of its own: name = \"{name}-2\"");
            return Err(Fault { hint: Some(hint), ..fault(&["stages", &at], format!("two stages are named '{name}'")) });
        }
    }
    Ok(())
}

/// The first stage must have something to work on.
fn starts(recipe: &Recipe, i: usize) -> Result<(), Fault> {
    if i > 0 || recipe.model.is_some() {
        return Ok(());
    }
    let own = match &recipe.stages[0] {
        Stage::Train(s) => s.model.is_some(),
        Stage::Distill(s) => s.student.is_some(),
        _ => false,
    };
    if own {
        return Ok(());
    }
    let hint = "add [model] with file = \"...\" or arch = \"...\"".to_string();
    Err(Fault { hint: Some(hint), ..fault(&["stages", "0"], "the first stage has no model to start from") })
}

/// A teacher is an earlier stage, or a file (which has an extension or a folder).
fn teacher(recipe: &Recipe, i: usize) -> Result<(), Fault> {
    let Some(teacher) = recipe.stages[i].teacher() else { return Ok(()) };
    let earlier: Vec<&str> = recipe.stages[..i].iter().map(Stage::name).collect();
    if earlier.contains(&teacher) || teacher.contains(['.', '/', '\\']) {
        return Ok(());
    }
    let at = i.to_string();
    let message = match recipe.stages[i..].iter().any(|s| s.name() == teacher) {
        true => format!("the teacher '{teacher}' is not an earlier stage"),
        false => format!("no earlier stage is named '{teacher}'"),
    };
    let hint = did_you_mean(teacher, earlier.iter().copied()).map(|k| format!("did you mean '{k}'?"));
    let hint = hint.or_else(|| Some(format!("earlier stages: {}; or name an .onnx file", earlier.join(", "))));
    Err(Fault { hint, ..fault(&["stages", &at, "teacher"], message) })
}

fn needs_data(recipe: &Recipe, i: usize) -> Result<(), Fault> {
    let stage = &recipe.stages[i];
    let calibrates = matches!(stage, Stage::Quantize(_));
    let trains = stage.training().is_some_and(|t| t.epochs > 0);
    if (trains || calibrates) && recipe.data.as_ref().is_none_or(|d| d.train.is_none()) {
        let message = format!("stage '{}' needs training data", stage.name());
        let hint = "add [data] with train = \"FOLDER\"".to_string();
        return Err(Fault { hint: Some(hint), ..fault(&["stages", &i.to_string()], message) });
    }
    Ok(())
}

fn training(stage: &Stage, at: &str) -> Result<(), Fault> {
    let Some(training) = stage.training() else { return Ok(()) };
    if training.batch == 0 {
        return Err(fault(&["stages", at, "batch"], "batch = 0: at least one image a step is needed"));
    }
    within(&["stages", at, "label_smoothing"], training.label_smoothing, 0.0, 1.0, "it is a share of the target")?;
    if training.clip_norm.is_some_and(|c| c.is_nan() || c <= 0.0) {
        return Err(fault(&["stages", at, "clip_norm"], "clip_norm must be above 0"));
    }
    if training.memory == Some(ByteSize(0)) {
        return Err(fault(&["stages", at, "memory"], "memory = 0: a size such as \"2 GB\" is needed; absent: no limit"));
    }
    if let Some(optimizer) = &training.optimizer {
        optimizer.check().map_err(|e| setting(at, e))?;
    }
    training.schedule.check().map_err(|e| setting(at, e))
}

/// Stopping early needs something to stop by.
fn stopping(recipe: &Recipe, stage: &Stage, at: &str) -> Result<(), Fault> {
    let validates = recipe.data.as_ref().is_some_and(|d| d.validation > 0.0 || d.validation_set.is_some());
    match stage.training().and_then(|t| t.early_stopping) {
        Some(0) => Err(fault(&["stages", at, "early_stopping"], "early_stopping = 0: it is a number of epochs, at least 1; absent: never")),
        Some(_) if !validates => {
            let hint = "hold images out with data.validation = 0.1, or name some with data.validation_set; or leave early_stopping out";
            let message = "early_stopping needs validation images, and the recipe has none: it would never stop";
            Err(Fault { hint: Some(hint.into()), ..fault(&["stages", at, "early_stopping"], message) })
        }
        _ => Ok(()),
    }
}

/// A student that can be built, and earlier stages that it may inherit from.
fn distilled(recipe: &Recipe, i: usize) -> Result<(), Fault> {
    let Stage::Distill(stage) = &recipe.stages[i] else { return Ok(()) };
    let at = i.to_string();
    let path = ["stages", at.as_str(), "student"];
    if let Some(student) = &stage.student {
        match (&student.arch, &student.file) {
            (Some(_), Some(_)) => return Err(fault(&path, "the student has both a file and an arch: one is needed")),
            (Some(arch), None) => architecture(&path, arch, student.width, None, None)?,
            (None, Some(_)) if student.width != 1.0 => return Err(fault(&path, "width goes with arch: a file has its own")),
            (None, Some(_)) => {}
            (None, None) => match recipe.begins_with().and_then(|m| m.arch.as_ref()) {
                Some(arch) => architecture(&path, arch, student.width, None, None)?,
                None => {
                    let hint = "name one: student = { arch = \"resnet8\", width = 0.5 }, or student = { file = \"student.onnx\" }";
                    let message = "the student needs an arch or a file: a model file cannot be built in another width";
                    return Err(Fault { hint: Some(hint.into()), ..fault(&path, message) });
                }
            },
        }
    }
    let Inherit::Stages(names) = &stage.inherit else { return Ok(()) };
    let earlier: Vec<&str> =
        recipe.stages[..i].iter().filter(|s| matches!(s, Stage::Prune(_) | Stage::Quantize(_))).map(Stage::name).collect();
    match names.iter().find(|name| !earlier.contains(&name.as_str())) {
        Some(name) => {
            let list = format!("earlier stages that prune or quantize: {}", earlier.join(", "));
            let hint = did_you_mean(name, earlier.iter().copied()).map_or(list, |k| format!("did you mean '{k}'?"));
            Err(Fault {
                hint: Some(hint),
                ..fault(&["stages", &at, "inherit"], format!("no earlier stage that can be inherited is named '{name}'"))
            })
        }
        None => Ok(()),
    }
}

/// The fault behind an error of the trainer, which names a setting by its keys.
fn setting(at: &str, error: TrainError) -> Fault {
    match error {
        TrainError::Setting { setting, what } => {
            let path: Vec<&str> = ["stages", at].into_iter().chain(setting.split('.')).collect();
            fault(&path, format!("{setting} {what}"))
        }
        other => fault(&["stages", at], other.to_string()),
    }
}

fn own(stage: &Stage, at: &str) -> Result<(), Fault> {
    let key = |k: &'static str| ["stages", at, k];
    let bits = |k: &'static str, bits: u8| within(&["stages", at, k, "bits"], f64::from(bits), 2.0, 8.0, "no runtime has others");
    let teacher = |temperature: f64, alpha: f64| {
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(fault(&key("temperature"), format!("temperature = {temperature}: a number above 0 is needed")));
        }
        within(&key("alpha"), alpha, 0.0, 1.0, "it is the teacher's share of the loss")
    };
    match stage {
        Stage::Train(s) => s.model.as_ref().map_or(Ok(()), |m| source(&key("model"), m)),
        Stage::Quantize(s) => {
            bits("weights", s.weights.bits)?;
            bits("activations", s.activations.bits)?;
            if s.batch_norm == BatchNorm::Keep && !s.weights.per_channel {
                let message = "batch_norm = \"keep\" needs per_channel = true: only a scale for each channel can follow its statistics";
                return Err(fault(&["stages", at, "weights", "per_channel"], message));
            }
            if s.calibration.images == 0 || s.calibration.batch == 0 {
                return Err(fault(&key("calibration"), "calibration needs at least one image, and a batch of at least one"));
            }
            let path = ["stages", at, "calibration", "percentile"];
            within(&path, s.calibration.percentile, 50.0, 100.0, "it is the percentage of the values within the range")
        }
        Stage::Prune(s) => {
            within(&key("sparsity"), s.sparsity, 0.0, 1.0, "it is a share of the weights, so 90 % is 0.9")?;
            within(&key("min_per_layer"), s.min_per_layer, 0.0, 1.0, "it is a share of each layer's weights")
        }
        Stage::Distill(s) => teacher(s.temperature, s.alpha),
        Stage::Finetune(s) => teacher(s.temperature, s.alpha),
        Stage::Deploy(s) if s.threads == Some(0) => Err(fault(&key("threads"), "threads = 0: at least one is needed")),
        Stage::Deploy(s) if s.images == Some(0) => Err(fault(&key("images"), "images = 0: at least one is needed; absent: all")),
        Stage::Deploy(s) => match (s.latency_runs, s.opset) {
            (0, _) => Err(fault(&key("latency_runs"), "latency_runs = 0: at least one run is needed")),
            (_, Some(opset)) if !(onnx::OLDEST_OPSET..=onnx::NEWEST_OPSET).contains(&opset) => {
                let message = format!("opset {opset} is not within {}..={}", onnx::OLDEST_OPSET, onnx::NEWEST_OPSET);
                Err(fault(&key("opset"), message))
            }
            _ => Ok(()),
        },
    }
}
