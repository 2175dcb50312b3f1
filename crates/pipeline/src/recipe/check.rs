//! Checks of a recipe that its types cannot express: ranges, and how its parts fit together.
use super::{ModelSource, Recipe, Stage};
use technique::{Fault, did_you_mean, within};
use zoo::{ZooError, ZooOptions};

/// Most threads; more are taken for a typing error.
const MOST_THREADS: f64 = 1024.0;

/// Most padding of images, in pixels; more is taken for a typing error.
const MOST_PADDING: f64 = 4096.0;

pub(super) fn check(recipe: &Recipe) -> Result<(), Fault> {
    if recipe.name.is_empty() || recipe.name.contains(['/', '\\', '\0']) || recipe.name.starts_with('.') {
        return Err(Fault::new("name", "the name is also a folder's: it may not be empty, start with a dot or hold a slash"));
    }
    if i64::try_from(recipe.seed).is_err() {
        return Err(Fault::new("seed", format!("seed = {} is not within 0..{}", recipe.seed, i64::MAX)));
    }
    if let Some(n) = recipe.threads {
        within("threads", n as f64, 1.0, MOST_THREADS, "absent: one for each processor")?;
    }
    if let Some(model) = &recipe.model {
        source("model", model)?;
    }
    data(recipe)?;
    goals(recipe)?;
    if recipe.stages.is_empty() {
        return Err(Fault::new("name", "the recipe has no stage: add one under a heading [[stages]]"));
    }
    names(recipe)?;
    for (i, stage) in recipe.stages.iter().enumerate() {
        let stage = || -> Result<(), Fault> {
            starts(recipe, i)?;
            teacher(recipe, i)?;
            needs_data(recipe, i)?;
            let validates = recipe.data.as_ref().is_some_and(|d| d.validation > 0.0 || d.validation_set.is_some());
            stage.training().map_or(Ok(()), |training| training.check(validates))?;
            stage.check(recipe, i)
        };
        stage().map_err(|fault| fault.under(&format!("stages.{i}")))?;
    }
    Ok(())
}

/// Checks the origin of a model; `path` is the key of its table.
///
/// # Errors
/// A [`Fault`] at the key.
pub(crate) fn source(path: &str, model: &ModelSource) -> Result<(), Fault> {
    match (&model.file, &model.arch) {
        (Some(_), Some(_)) => Err(Fault::new(path, "the model has both a file and an arch: one is needed")),
        (None, None) => Err(Fault::new(path, "the model needs a file (an ONNX model) or an arch (one of the zoo)")),
        (Some(_), None) if model.classes.is_some() || model.input.is_some() => {
            Err(Fault::new(path, "classes and input go with arch: a file has its own"))
        }
        (None, Some(arch)) => architecture(path, arch, model.width, model.classes, model.input.as_ref()),
        _ => Ok(()),
    }
}

/// Checks an architecture and its options; `path` is the key of its table.
///
/// # Errors
/// A [`Fault`] at the key.
pub(crate) fn architecture(path: &str, arch: &str, width: f64, classes: Option<usize>, input: Option<&Vec<usize>>) -> Result<(), Fault> {
    let error = match zoo::find(arch) {
        Ok(entry) => {
            let mut options = ZooOptions { width, ..entry.default_options() };
            options.classes = classes.unwrap_or(options.classes);
            options.input = input.cloned().unwrap_or(options.input);
            return entry.check(&options).map_err(|e| match e {
                ZooError::Option { option, what, .. } => Fault::new(&format!("{path}.{option}"), format!("{option} {what}")),
                other => Fault::new(path, other.to_string()),
            });
        }
        Err(error) => error,
    };
    let known: Vec<&str> = zoo::list().iter().map(|e| e.name).collect();
    let path = format!("{path}.arch");
    match did_you_mean(arch, known.iter().copied()) {
        Some(meant) => Err(Fault::new(&path, format!("unknown architecture '{arch}'")).hint(format!("did you mean '{meant}'?"))),
        None => Err(Fault::new(&path, error.to_string())),
    }
}

fn data(recipe: &Recipe) -> Result<(), Fault> {
    let Some(data) = &recipe.data else { return Ok(()) };
    if !(0.0..1.0).contains(&data.validation) {
        return Err(Fault::new(
            "data.validation",
            format!("validation = {} is a part of the training images, 0..1, and leaves some to train on", data.validation),
        ));
    }
    if data.validation > 0.0 && data.validation_set.is_some() {
        return Err(Fault::new("data.validation", "validation and validation_set exclude each other: give one of them"));
    }
    for (rows, given, of, path) in
        [("train_rows", data.train_rows, "train", &data.train), ("test_rows", data.test_rows, "test", &data.test)]
    {
        if given.is_some() && path.is_none() {
            let what = format!("{rows} is a part of data.{of}, which the recipe does not name");
            return Err(Fault::new(&format!("data.{rows}"), what).hint(format!("add {of} = \"FOLDER\", or leave {rows} out")));
        }
    }
    if let Some(preprocess) = &data.preprocess {
        preprocess.validate().map_err(|e| Fault::new("data.preprocess", e.to_string()))?;
    }
    if let Some((name, _)) = data.inputs.iter().find(|(_, rule)| rule.carried.is_some() && data.validation > 0.0) {
        let message =
            format!("'{name}' is carried from row to row, and rows that are held out leave gaps: name data.validation_set instead");
        return Err(Fault::new("data.validation", message));
    }
    let padding = data.augment.crop_padding as f64;
    within("data.augment.crop_padding", padding, 0.0, MOST_PADDING, "it is a number of pixels")
}

fn goals(recipe: &Recipe) -> Result<(), Fault> {
    let goals = &recipe.goals;
    if let Some(drop) = goals.max_accuracy_drop {
        within("goals.max_accuracy_drop", drop, 0.0, 100.0, "it is a number of percentage points")?;
    }
    if let Some(least) = goals.min_accuracy {
        within("goals.min_accuracy", least, 0.0, 100.0, "it is a percentage")?;
    }
    metrics(recipe)?;
    match goals.max_latency_ms {
        Some(ms) if !(ms > 0.0 && ms.is_finite()) => {
            Err(Fault::new("goals.max_latency_ms", format!("max_latency_ms = {ms}: a number of milliseconds above 0 is needed")))
        }
        _ => Ok(()),
    }
}

/// Checks that the task has the metrics of the goals.
fn metrics(recipe: &Recipe) -> Result<(), Fault> {
    let (goals, task) = (&recipe.goals, &recipe.task);
    let known: Vec<&str> = task.metrics().iter().map(|m| m.key).collect();
    let list = || format!("the metrics of the task {} are: {}", task.kind(), known.join(", "));
    let own = [("max_accuracy_drop", goals.max_accuracy_drop), ("min_accuracy", goals.min_accuracy)];
    if let Some((key, _)) = own.into_iter().find(|(_, goal)| goal.is_some() && !known.contains(&"accuracy")) {
        let hint = format!("{}; for example metrics.{} = {{ max = 0.5 }}", list(), known.first().unwrap_or(&"mae"));
        return Err(Fault::new(&format!("goals.{key}"), format!("{key}: a {} has no accuracy", task.kind())).hint(hint));
    }
    for (key, goal) in &goals.metrics {
        let path = format!("goals.metrics.{key}");
        if !known.contains(&key.as_str()) {
            let hint = did_you_mean(key, known.iter().copied()).map_or_else(list, |k| format!("did you mean '{k}'?"));
            return Err(Fault::new(&path, format!("'{key}' is not a metric of the task {}", task.kind())).hint(hint));
        }
        let values = [("min", goal.min), ("max", goal.max), ("max_drop", goal.max_drop), ("max_rise", goal.max_rise)];
        let given: Vec<(&str, f64)> = values.into_iter().filter_map(|(what, value)| Some((what, value?))).collect();
        if given.is_empty() {
            let hint = "min, max, max_drop or max_rise with a number";
            return Err(Fault::new(&path, format!("the goal for '{key}' is empty")).hint(hint));
        }
        if let Some((what, value)) = given.iter().find(|(what, v)| !v.is_finite() || (what.starts_with("max_") && *v < 0.0)) {
            return Err(Fault::new(&format!("{path}.{what}"), format!("{what} = {value}: a number, 0 or more for a change, is needed")));
        }
    }
    Ok(())
}

fn names(recipe: &Recipe) -> Result<(), Fault> {
    for (i, stage) in recipe.stages.iter().enumerate() {
        let name = stage.name();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            let message = format!("'{name}' is not a stage's name: letters, digits, '-' and '_' are allowed");
            return Err(Fault::new(&format!("stages.{i}.name"), message));
        }
        if recipe.stages[..i].iter().any(|s| s.name() == name) {
            let hint = format!("give one of them a name of its own: name = \"{name}-2\"");
            return Err(Fault::new(&format!("stages.{i}"), format!("two stages are named '{name}'")).hint(hint));
        }
    }
    Ok(())
}

/// The first stage needs a model. Paths of this and the following faults begin at the stage.
fn starts(recipe: &Recipe, i: usize) -> Result<(), Fault> {
    if i > 0 || recipe.model.is_some() || recipe.stages[0].begins_anew().is_some() {
        return Ok(());
    }
    Err(Fault::new("", "the first stage has no model to start from").hint("add [model] with file = \"...\" or arch = \"...\""))
}

/// A teacher is an earlier stage, or a file (which has an extension or a folder).
fn teacher(recipe: &Recipe, i: usize) -> Result<(), Fault> {
    let Some(teacher) = recipe.stages[i].teacher() else { return Ok(()) };
    let earlier: Vec<&str> = recipe.stages[..i].iter().map(Stage::name).collect();
    if earlier.contains(&teacher) || teacher.contains(['.', '/', '\\']) {
        return Ok(());
    }
    let message = match recipe.stages[i..].iter().any(|s| s.name() == teacher) {
        true => format!("the teacher '{teacher}' is not an earlier stage"),
        false => format!("no earlier stage is named '{teacher}'"),
    };
    let list = || format!("earlier stages: {}; or name an .onnx file", earlier.join(", "));
    let hint = did_you_mean(teacher, earlier.iter().copied()).map_or_else(list, |k| format!("did you mean '{k}'?"));
    Err(Fault::new("teacher", message).hint(hint))
}

fn needs_data(recipe: &Recipe, i: usize) -> Result<(), Fault> {
    let stage = &recipe.stages[i];
    if (stage.trains() || stage.calibrates()) && recipe.data.as_ref().is_none_or(|d| d.train.is_none()) {
        let message = format!("stage '{}' needs training data", stage.name());
        let hint = match stage.trains() {
            true => "add [data] with train = \"FOLDER\"",
            false => "add [data] with train = \"FOLDER\", or calibrate without data: calibration.data = \"generated\"",
        };
        return Err(Fault::new("", message).hint(hint));
    }
    Ok(())
}
