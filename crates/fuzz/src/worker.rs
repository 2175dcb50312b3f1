//! The process that runs one target's cases in sequence until its time is up or a case ends it.
use crate::allocator;
use crate::arguments::Arguments;
use crate::case::Case;
use crate::random::Random;
use crate::targets::{self, Target};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Seconds of processor time that a case may take.
const DEADLINE: u64 = 10;

/// Panics since the case began: place and message.
static PANICS: Mutex<Vec<(String, String)>> = Mutex::new(vec![]);
/// Number of the present case, from 1.
static AT: AtomicU64 = AtomicU64::new(0);

/// A target with its seeds.
pub(crate) struct Source {
    target: &'static Target,
    seeds: Vec<Case>,
}

impl Source {
    pub(crate) fn new(name: &str) -> Result<Source, String> {
        let target = targets::ALL.iter().find(|t| t.name == name).ok_or_else(|| format!("no target is named '{name}' (see --list)"))?;
        let seeds = (target.seeds)()?;
        if seeds.is_empty() {
            return Err(format!("target {name} has no seeds"));
        }
        Ok(Source { target, seeds })
    }

    /// The case with this number: the seeds themselves come first.
    pub(crate) fn case(&self, seed: u64, number: u64) -> Case {
        if let Some(case) = self.seeds.get(number as usize) {
            return case.clone();
        }
        let mut r = Random::of(seed, self.target.name, number);
        let mut case = r.pick(&self.seeds).clone();
        let other = r.pick(&self.seeds);
        let changed = |case: &Case, r: &mut Random| {
            let files: Vec<usize> = (0..case.files.len()).filter(|i| case.files[*i].0 != targets::INPUTS).collect();
            *r.pick(&files)
        };
        let (i, j) = (changed(&case, &mut r), changed(other, &mut r));
        (self.target.mutate)(&mut r, &mut case.files[i], &other.files[j].1);
        case
    }
}

/// Runs cases from a number on and reports to the supervisor: `case N` before each, `finding N WHERE<tab>WHAT` after a bad one.
pub(crate) fn work(a: &Arguments, target: &str, from: u64) -> Result<(), String> {
    let source = Source::new(target)?;
    prepare();
    let begun = Instant::now();
    let mut out = std::io::stdout().lock();
    let mut number = from;
    while begun.elapsed().as_secs_f64() < a.seconds && number < a.cases {
        let case = source.case(a.seed, number);
        writeln!(out, "case {number}").and_then(|()| out.flush()).map_err(|e| e.to_string())?;
        if let Err((place, what)) = run(&source, &case, number) {
            let line = |s: &str| s.replace(['\n', '\t', '\r'], " ");
            writeln!(out, "finding {number} {}\t{}", line(&place), line(&what)).map_err(|e| e.to_string())?;
        }
        number += 1;
    }
    writeln!(out, "done {number} {} {}", allocator::peak(), allocator::held()).map_err(|e| e.to_string())
}

/// Runs one case, prints the result, and keeps its files. True if it is no finding.
pub(crate) fn once(a: &Arguments, target: &str, number: u64) -> Result<bool, String> {
    let source = Source::new(target)?;
    let case = source.case(a.seed, number);
    let folder = a.findings.join(format!("{target}-{}-{number}", a.seed));
    case.write(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    println!("{target} {number}, made of {}: {}", case.of, folder.display());
    prepare();
    let begun = Instant::now();
    let result = run(&source, &case, number);
    println!("{:.2} s, {} bytes at most", begun.elapsed().as_secs_f64(), allocator::peak());
    match result {
        Ok(()) => println!("nothing wrong"),
        Err((place, what)) => {
            println!("{place}: {what}");
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sets the memory limit, the deadline, and the panic hook.
fn prepare() {
    std::panic::set_hook(Box::new(|info| {
        let what = info.payload().downcast_ref::<&str>().map(|s| s.to_string());
        let what = what.or_else(|| info.payload().downcast_ref::<String>().cloned()).unwrap_or_default();
        let place = info.location().map_or(String::new(), |l| format!("{}:{}", l.file(), l.line()));
        PANICS.lock().unwrap_or_else(PoisonError::into_inner).push((place, what));
    }));
    tensor::set_threads(Some(2));
    allocator::bound();
    // The memory limit of tensors is lower than the allocator's, so that large tensors are refused by name first.
    tensor::memory::set_limit(Some(allocator::MOST as u64 / 2));
    std::thread::spawn(watch);
}

/// Ends the process when a case takes too long.
fn watch() {
    let (mut at, mut since) = (0, spent());
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let now = AT.load(Ordering::Relaxed);
        if now != at {
            (at, since) = (now, spent());
        } else if at > 0 && spent().saturating_sub(since) > Duration::from_secs(DEADLINE) {
            eprintln!("deadline: more than {DEADLINE} s of processor time");
            std::process::abort();
        }
    }
}

/// Processor time of this process where the system tells it, so that a busy machine causes no finding; else wall-clock time.
fn spent() -> Duration {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    /// Unit of the processor times that Linux reports.
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string("/proc/self/stat").ok();
    // After the name in parentheses: fields 12 and 13.
    let ticks = stat.as_ref().and_then(|s| s.rsplit_once(')')).and_then(|(_, rest)| {
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?)
    });
    ticks.map_or_else(|| BEGUN.get_or_init(Instant::now).elapsed(), |t| TICK * t)
}

/// Runs a case in a folder of its own. A finding has a place and a message.
fn run(source: &Source, case: &Case, number: u64) -> Result<(), (String, String)> {
    PANICS.lock().unwrap_or_else(PoisonError::into_inner).clear();
    AT.store(number + 1, Ordering::Relaxed);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        (source.target.run)(case, folder.path())
    }));
    let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
    // A dependency's panic that was caught and reported as an error of the file is the wanted behaviour.
    let ours = panics.into_iter().find(|(place, _)| result.is_err() || !place.contains("/registry/"));
    match (ours, result) {
        (Some(panic), _) => Err(panic),
        (None, Ok(Err(what))) => Err(("promise".into(), what)),
        (None, Ok(Ok(()))) => Ok(()),
        (None, Err(_)) => Err(("panic".into(), "without a message".into())),
    }
}
