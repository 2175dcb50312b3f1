//! From arguments to calls of the library, and from results to what is printed.
use crate::args::{Args, Axes, Bench, Command, Compare, Diagnose, Evaluate, Preprocessing, Run, Runs, RuntimeCommand};
use crate::args::{Samples, Sensitivity, Short, Task, Topic};
use crate::output::Printer;
use crate::progress::Progress;
use clap::CommandFactory;
use espalier::commands as lib;
use espalier::data::Layout;
use espalier::pipeline::RunOptions;
use espalier::{Error, report};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A goal of the recipe was missed.
const MISSED: u8 = 3;

/// Runs the command. Returns the exit code.
pub(crate) fn dispatch(command: &Command, printer: &Printer) -> Result<u8, Error> {
    let name = command.name();
    let mut progress = Progress::new(printer);
    match command {
        Command::Run(args) if args.dry_run => {
            let done = lib::plan(&args.recipe, &args.set, run_options(args, printer)?)?;
            printer.result(name, &done, &done);
        }
        Command::Run(args) => return run(args, printer),
        Command::Init(a) => {
            let done = lib::init(&task(&a.task), a.output.as_deref())?;
            printer.result(name, &done, &done);
        }
        Command::Quantize(a) => return shortcut(name, &a.short, lib::Purpose::Quantize { epochs: a.epochs }, printer),
        Command::Prune(a) => {
            let size = a.file_size.map(lib::Cut::Size);
            let cut = a.macs.map(lib::Cut::Macs).or(a.latency.map(lib::Cut::Latency)).or(size);
            let purpose = match cut {
                Some(cut) => lib::Purpose::PruneChannels { cut, epochs: a.epochs },
                None => lib::Purpose::Prune { sparsity: a.sparsity, epochs: a.epochs },
            };
            return shortcut(name, &a.short, purpose, printer);
        }
        Command::Distill(a) => {
            let purpose = lib::Purpose::Distill { student: a.student.clone(), width: a.width, epochs: a.epochs };
            return shortcut(name, &a.short, purpose, printer);
        }
        Command::Runs(Runs::List { folder }) => {
            let list = lib::list_runs(folder)?;
            let text: String = list.iter().map(|run| format!("{run}\n")).collect();
            printer.result(name, &list, text);
        }
        Command::Runs(Runs::Diff { a, b }) => {
            let done = lib::diff_runs(a, b)?;
            printer.result(name, &done, &done);
        }
        Command::Runtime(RuntimeCommand::Find) => {
            let done = lib::find_runtime()?;
            printer.result(name, &done, &done);
        }
        Command::Runtime(RuntimeCommand::Fetch { output }) => {
            let done = lib::fetch_runtime(output.as_deref())?;
            printer.result(name, &done, &done);
        }
        Command::Convert(a) => {
            let done = lib::convert(&a.model, &a.output, &lib::ConvertOptions { clean: a.clean, opset: a.opset, float32: a.float32 })?;
            printer.result(name, &done, &done);
        }
        Command::Pack(a) => {
            let done = lib::pack(&a.model, a.output.as_deref())?;
            printer.result(name, &done, &done);
        }
        Command::Unpack(a) => {
            let done = lib::unpack(&a.archive, a.output.as_deref())?;
            printer.result(name, &done, &done);
        }
        Command::Execute(a) => {
            let r = &a.runtime;
            let done = lib::execute(&a.model, &a.input, a.output.as_deref(), &r.runtime, r.literal, r.threads)?;
            printer.result(name, &done, &done);
        }
        Command::Inspect(a) => {
            let shapes = a.shape.iter().cloned().collect();
            if a.groups {
                let done = lib::channel_groups(&a.model, &shapes)?;
                printer.result(name, &done, &done);
            } else {
                let done = lib::inspect(&a.model, &shapes)?;
                printer.result(name, &done, &done);
            }
        }
        Command::Evaluate(a) => {
            let done = lib::evaluate(&a.model, &a.data, &evaluate_options(a)?, &mut ticks(&mut progress, "evaluate"))?;
            printer.result(name, &done, &done);
        }
        Command::Compare(a) => {
            let done = lib::compare(&a.a, &a.b, &compare_on(a)?, &mut ticks(&mut progress, "compare"))?;
            printer.result(name, &done, &done);
        }
        Command::Sensitivity(a) => {
            let done = lib::sensitivity(&sensitivity_options(a), &mut ticks(&mut progress, "measure"))?;
            printer.result(name, &done, &done);
            a.output.iter().for_each(|file| printer.note(&format!("written: {}", file.display())));
        }
        Command::Diagnose(a) => {
            let done = lib::diagnose(&diagnose_options(a), &mut ticks(&mut progress, "measure"))?;
            printer.result(name, &done, &done);
            done.written.iter().for_each(|file| printer.note(&format!("written: {}", file.display())));
        }
        Command::Bench(Bench::Train(a)) => {
            let options = bench_options(a.batch, a.steps, &a.shape, &a.input);
            let memory = a.memory.map(|m| m.0);
            let training = lib::TrainBenchOptions { qat: a.qat, sparsity: a.sparsity, teacher: a.teacher.clone(), memory };
            let done = lib::bench_train(&a.model, &options, &training)?;
            printer.result(name, &done, &done);
        }
        Command::Bench(Bench::Infer(a)) => {
            let (options, r) = (bench_options(a.batch, a.runs, &a.shape, &a.input), &a.runtime);
            let done = lib::bench_infer(&a.model, &options, &r.runtime, r.literal, r.threads)?;
            printer.result(name, &done, &done);
        }
        Command::Bench(Bench::Machine) => {
            let done = lib::bench_machine()?;
            printer.result(name, &done, &done);
        }
        Command::New(a) => {
            let options = lib::NewOptions { width: a.width, classes: a.classes, input: a.input.clone(), seed: a.seed };
            let done = lib::new(&a.arch, &a.output, &options)?;
            printer.result(name, &done, &done);
        }
        Command::Report(a) => {
            let (record, page) = lib::report(&a.run)?;
            let text = if a.markdown { report::markdown(&record) } else { report::terminal(&record) };
            printer.result(name, &record, text);
            printer.note(&format!("written: {}", page.display()));
        }
        Command::List(a) => {
            let list = lib::list(match a.topic {
                Topic::Stages => lib::Topic::Stages,
                Topic::Techniques => lib::Topic::Techniques,
                Topic::Architectures => lib::Topic::Architectures,
                Topic::Operators => lib::Topic::Operators,
                Topic::Runtimes => lib::Topic::Runtimes,
                Topic::Devices => lib::Topic::Devices,
            });
            let text: String = list.iter().map(|e| format!("{}\n", e.to_string().trim_end())).collect();
            printer.result(name, &list, text);
        }
        Command::Explain(a) => {
            let text = lib::explain(&a.name)?;
            printer.result(name, &text, &text);
        }
        Command::Schema => {
            let schema = espalier::pipeline::recipe::schema();
            printer.result(name, &schema, format!("{schema:#}\n"));
        }
        Command::Completions(a) => {
            let mut script = vec![];
            clap_complete::generate(a.shell, &mut Args::command(), "espalier", &mut script);
            let script = String::from_utf8_lossy(&script).into_owned();
            printer.result(name, &script, &script);
        }
    }
    Ok(0)
}

fn run(args: &Run, printer: &Printer) -> Result<u8, Error> {
    let options = RunOptions { stop: stop_on_ctrl_c()?, ..run_options(args, printer)? };
    let mut progress = Progress::new(printer);
    let done = lib::run(&args.recipe, &args.set, options, &mut progress)?;
    Ok(finished("run", &done, &progress, printer))
}

/// A flag that Ctrl-C sets.
fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let handler = ctrlc::set_handler(move || {
        // A second Ctrl-C ends the program at once.
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    handler.map_err(|e| Error::Input(format!("Ctrl-C cannot be handled: {e}")))?;
    Ok(stop)
}

/// Options of every run: the command line, and the program that measures memory.
fn surroundings() -> RunOptions {
    RunOptions { command: std::env::args().collect(), program: std::env::current_exe().ok(), ..RunOptions::default() }
}

fn run_options(args: &Run, printer: &Printer) -> Result<RunOptions, Error> {
    for (old, new, given) in [("--out", "--output", args.out.is_some()), ("--data", "--data-root", args.data.is_some())] {
        if given {
            printer.note(&format!("note: run's {old} is now called {new}"));
        }
    }
    let out = args.output.clone().or(args.out.clone()).unwrap_or_default();
    let data = args.data_root.clone().or(args.data.clone());
    Ok(RunOptions { out, data, watch: args.watch, ..surroundings() })
}

/// Prints a run's result. Returns the exit code.
fn finished(name: &str, done: &lib::RunResult, progress: &Progress, printer: &Printer) -> u8 {
    // Warnings that were printed to stderr are not printed again.
    let seen = |stage: &str, text: &str| progress.has_warned(stage, text);
    printer.result(name, &done.record, report::terminal_after(&done.record, &seen));
    printer.note(&format!("report: {}", done.out.join("report.html").display()));
    if done.record.missed_a_goal() { MISSED } else { 0 }
}

fn task(a: &Task) -> lib::Task {
    lib::Task { model: a.model.clone(), data: a.data.clone(), test: a.test.clone(), preprocess: changes(&a.preprocess) }
}

/// Prints the recipe that a short command was turned into, and runs it.
fn shortcut(name: &str, a: &Short, purpose: lib::Purpose, printer: &Printer) -> Result<u8, Error> {
    let what = lib::Shortcut { task: task(&a.task), purpose, output: a.output.clone(), overrides: a.set.clone() };
    let out = a.run.clone().unwrap_or_default();
    let options = RunOptions { out, stop: stop_on_ctrl_c()?, ..surroundings() };
    let mut told = |text: &str, notes: &[String]| {
        printer.note(&format!("this command runs the recipe\n\n{text}"));
        notes.iter().for_each(|note| printer.note(&format!("note: {note}")));
    };
    let mut progress = Progress::new(printer);
    let done = lib::shortcut(&what, options, &mut told, &mut progress)?;
    let code = finished(name, &done, &progress, printer);
    let recipe = done.out.join("recipe.toml");
    printer.note(&format!("written: {} (again: espalier run {} --data-root .)", a.output.display(), recipe.display()));
    Ok(code)
}

fn bench_options(batch: u32, rounds: u32, shapes: &[(String, Vec<usize>)], input: &Option<PathBuf>) -> lib::BenchOptions {
    let shapes = shapes.iter().cloned().collect();
    lib::BenchOptions { batch: batch as usize, rounds: rounds as usize, shapes, input: input.clone() }
}

/// Prints a command's progress.
fn ticks<'a>(progress: &'a mut Progress, what: &'static str) -> impl FnMut(u64, u64) + 'a {
    move |done, total| if done < total { progress.advance(what, done, total, None) } else { progress.clear() }
}

fn changes(a: &Preprocessing) -> lib::PreprocessChanges {
    let list = |values: &[f64]| Some(values.to_vec()).filter(|v| !v.is_empty());
    lib::PreprocessChanges {
        channels: a.channels,
        size: a.size,
        crop: a.crop,
        layout: a.layout.map(|axes| match axes {
            Axes::Nchw => Layout::Nchw,
            Axes::Nhwc => Layout::Nhwc,
        }),
        scale: a.scale,
        mean: list(&a.mean),
        std: list(&a.std),
        arrays: a.arrays,
    }
}

fn samples(a: &Samples, batch: u32) -> Result<lib::SampleOptions, Error> {
    let task = a.task.as_ref().map(|name| lib::task_named(name, a.target.as_deref())).transpose()?;
    Ok(lib::SampleOptions {
        split: a.split.clone(),
        batch: a.batch.unwrap_or(batch) as usize,
        limit: a.limit,
        task,
        preprocess: changes(&a.preprocess),
    })
}

fn evaluate_options(a: &Evaluate) -> Result<lib::EvaluateOptions, Error> {
    let (r, samples) = (&a.runtime, samples(&a.samples, 64)?);
    let arithmetic = a.arithmetic.as_deref().map(str::parse).transpose().map_err(Error::Input)?;
    Ok(lib::EvaluateOptions { samples, runtime: r.runtime.clone(), literal: r.literal, arithmetic, threads: r.threads })
}

fn sensitivity_options(a: &Sensitivity) -> lib::SensitivityOptions {
    let task = |data: &PathBuf| lib::Task { model: a.of.clone(), data: data.clone(), test: None, preprocess: changes(&a.preprocess) };
    lib::SensitivityOptions {
        of: a.of.clone(),
        task: a.data.as_ref().map(task),
        data_root: a.data_root.clone(),
        overrides: a.set.clone(),
        model: a.model.clone(),
        stage: a.stage.clone(),
        levels: match a.prune {
            true => lib::Levels::Sparsities(a.sparsities.clone()),
            false => lib::Levels::Widths(a.widths.clone()),
        },
        samples: a.samples,
        outputs: a.output.clone(),
    }
}

fn diagnose_options(a: &Diagnose) -> lib::DiagnoseOptions {
    let task = |data: &PathBuf| lib::Task { model: a.of.clone(), data: data.clone(), test: None, preprocess: changes(&a.preprocess) };
    lib::DiagnoseOptions {
        of: a.of.clone(),
        task: a.data.as_ref().map(task),
        data_root: a.data_root.clone(),
        overrides: a.set.clone(),
        model: a.model.clone(),
        stage: a.stage.clone(),
        samples: a.samples,
        fix: a.fix.then_some(a.budget),
        outputs: a.output.clone(),
    }
}

fn compare_on(a: &Compare) -> Result<lib::CompareOn, Error> {
    Ok(match (&a.data, &a.input) {
        (Some(data), _) => lib::CompareOn::Data(data.clone(), Box::new(samples(&a.samples, 8)?)),
        (None, Some(arrays)) => lib::CompareOn::Arrays(arrays.clone()),
        (None, None) => lib::CompareOn::Noise { shapes: a.shape.iter().cloned().collect(), seed: a.seed },
    })
}
